# Needs: the data sets and backbones of the configuration.
# Makes: results/EXPERIMENT/vision/{data,backbones,heads,scores,tuned}/…, and the tidy tables transfer.csv
# (test split), validation.csv, summary.csv, comparison.csv and theory.csv.


# Networks of the demo: pretrained on glyphs, by architecture and corpus.
rule pretrain:
    output:
        config=f"{TOP}/backbones/{{backbone}}/open_clip_config.json",
        weights=f"{TOP}/backbones/{{backbone}}/open_clip_model.safetensors",
    log:
        f"{LOGS}/pretrain/{{backbone}}.log",
    benchmark:
        f"{COSTS}/pretrain/{{backbone}}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        entry=lambda wc: {
            key: BACKBONES[wc.backbone][key] for key in ("architecture", "corpus")
        },
        recipe=lambda wc: as_json(BACKBONES[wc.backbone]["recipe"]),
        out=subpath(output.config, parent=True),
        checkpoint=f"{TOP}/checkpoints/pretrain/{{backbone}}.safetensors",
    shell:
        "prt vision pretrain --architecture {params.entry[architecture]} --corpus {params.entry[corpus]} "
        "--recipe {params.recipe:q} --out {params.out} --checkpoint {params.checkpoint} 2> {log}"


# A data set: three splits and a manifest.
rule prepare:
    input:
        data_files,
    output:
        expand(
            f"{TOP}/data/{{dataset}}/{{file}}",
            file=["manifest.json", "train.arrow", "validation.arrow", "test.arrow"],
            allow_missing=True,
        ),
    log:
        f"{LOGS}/prepare/{{dataset}}.log",
    benchmark:
        f"{COSTS}/prepare/{{dataset}}.tsv"
    wildcard_constraints:
        dataset="|".join(ENTRIES),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        entry=lambda wc: {
            key: value for key, value in ENTRIES[wc.dataset].items() if key != "shots"
        },
        state=state,
        classes=lambda wc: as_json(ENTRIES[wc.dataset].get("classes", [])),
        templates=lambda wc: as_json(ENTRIES[wc.dataset].get("templates", [])),
        validation=lambda wc: ENTRIES[wc.dataset].get("validation", 0.1),
        test=lambda wc: ENTRIES[wc.dataset].get("test", 0.2),
        downloads=DOWNLOADS,
        out=subpath(output[0], parent=True),
    shell:
        "prt vision prepare --source {params.entry[source]:q} --out {params.out} --downloads {params.downloads:q} "
        "--classes {params.classes:q} --templates {params.templates:q} --validation {params.validation} "
        "--test {params.test} 2> {log}"


# The zero-shot head of a backbone for a data set, and the pretrained model's scores with it.
rule zero_shot:
    input:
        backbone_files,
        data=f"{TOP}/data/{{dataset}}/manifest.json",
    output:
        head=f"{TOP}/heads/{{dataset}}/{{backbone}}.safetensors",
        validation=f"{TOP}/scores/{{dataset}}/{{backbone}}/validation.safetensors",
        test=f"{TOP}/scores/{{dataset}}/{{backbone}}/test.safetensors",
    log:
        f"{LOGS}/zero_shot/{{dataset}}.{{backbone}}.log",
    benchmark:
        f"{COSTS}/zero_shot/{{dataset}}.{{backbone}}.tsv"
    conda:
        "../../environment.yml"
    threads: cores
    resources:
        mem_mb=growing(16000),
        runtime=growing(60),
        gpu=gpus,
        device=device,
    params:
        spec=spec,
        data=subpath(input.data, parent=True),
        out=subpath(output.test, parent=True),
        recipe=scoring_recipe(),
        workers=workers,
    shell:
        "prt vision zero-shot --spec {params.spec:q} --backbone {wildcards.backbone} --dataset {wildcards.dataset} "
        "--data {params.data} --head {output.head} --recipe {params.recipe:q} --out {params.out} "
        "--workers {params.workers} --device {resources.device} 2> {log}"


# Fine-tuning (run ft) and reward tuning (run prt_ALPHA), with the scores of the result.
rule tune:
    input:
        backbone_files,
        checked,
        data=f"{TOP}/data/{{dataset}}/manifest.json",
        head=f"{TOP}/heads/{{dataset}}/{{backbone}}.safetensors",
    output:
        per_seed(f"{TOP}/tuned/{{dataset}}/{{backbone}}/{{run}}/{{shots}}", TUNED),
    log:
        per_seed_name(f"{LOGS}/tune/{{dataset}}.{{backbone}}.{{run}}.{{shots}}", "log"),
    benchmark:
        per_seed_name(f"{COSTS}/tune/{{dataset}}.{{backbone}}.{{run}}.{{shots}}", "tsv")
    conda:
        "../../environment.yml"
    threads: cores
    resources:
        mem_mb=growing(32000),
        runtime=growing(240),
        gpu=gpus,
        device=device,
    params:
        spec=spec,
        data=subpath(input.data, parent=True),
        method=lambda wc: wc.run.split("_")[0],
        alpha=lambda wc: wc.run.partition("_")[2] or 0,
        regimes=lambda wc: as_json(regimes(wc)),
        seeds=lambda wc: [f"--seed {seed}" for seed in seeds(wc)],
        initial="",
        every=lambda wc: VISION["figure6"]["every"] if is_figure6(wc) else 0,
        out=subpath(output[0], ancestor=3),
        checkpoints=f"{TOP}/checkpoints/{{dataset}}/{{backbone}}/{{run}}",
        workers=workers,
    shell:
        "prt vision tune --spec {params.spec:q} --backbone {wildcards.backbone} --dataset {wildcards.dataset} "
        "--data {params.data} --head {input.head} --method {params.method} --alpha {params.alpha} "
        "--regimes {params.regimes:q} {params.seeds} {params.initial} --every {params.every} --out {params.out} "
        "--checkpoints {params.checkpoints} --workers {params.workers} --device {resources.device} 2> {log}"


# All cells of the transfer tables of one data set, from the cached scores alone.
rule transfer:
    input:
        score_files,
    output:
        expand(
            f"{TOP}/transfer/{{split}}/{{dataset}}/{{table}}.csv",
            table=["transfer", "summary", "comparison", "theory"],
            allow_missing=True,
        ),
    log:
        f"{LOGS}/transfer/{{split}}.{{dataset}}.log",
    benchmark:
        f"{COSTS}/transfer/{{split}}.{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(30),
    params:
        pairs=lambda wc: [
            f"--pair {source}:{target}" for source, target in pairs(wc.dataset)
        ],
        strengths=[f"--strength {strength}" for strength in VISION["strengths"]],
        out=subpath(output[0], parent=True),
    shell:
        "prt transfer {input} {params.pairs} {params.strengths} --out {params.out} 2> {log}"


# The tables of all data sets in one: transfer.csv, summary.csv, comparison.csv, theory.csv.
rule collect:
    input:
        expand(
            f"{TOP}/transfer/test/{{dataset}}/{{table}}.csv",
            dataset=DATASETS,
            allow_missing=True,
        ),
    output:
        report(
            f"{TOP}/{{table}}.csv",
            category="Tables",
            labels={"table": "{table}"},
            caption="../report/tables.rst",
        ),
    log:
        f"{LOGS}/collect/{{table}}.log",
    benchmark:
        f"{COSTS}/collect/{{table}}.tsv"
    wildcard_constraints:
        table="transfer|summary|comparison|theory",
    group:
        "collected"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    shell:
        "prt collect {input} --out {output} 2> {log}"


# The same measurements on the validation split: what settings may be chosen by.
use rule collect as collect_validation with:
    input:
        expand(f"{TOP}/transfer/validation/{{dataset}}/transfer.csv", dataset=DATASETS),
    output:
        f"{TOP}/validation.csv",
    log:
        f"{LOGS}/collect/validation.log",
    benchmark:
        f"{COSTS}/collect/validation.tsv"
