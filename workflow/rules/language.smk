# Needs: the models, chats and benchmarks of the configuration.
# Makes: results/EXPERIMENT/language/{models,chats,tuned,evaluated}/…, and the tidy tables transfer.csv, summary.csv
# and comparison.csv.


# the demo's chats and benchmarks: generated text.
rule write_text:
    output:
        expand(
            f"{LANGUAGE_TOP}/{{file}}",
            file=[
                "chats/train.jsonl",
                "benchmarks/problems/test.jsonl",
                "benchmarks/instructions/test.jsonl",
            ],
        ),
    log:
        f"{LANGUAGE_LOGS}/write_text.log",
    benchmark:
        f"{LANGUAGE_COSTS}/write_text.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        out=subpath(output[0], ancestor=2),
    shell:
        "prt language write-text --out {params.out} 2> {log}"


# Models of the demo: pretrained on generated text, by size and corpus.
rule pretrain_language:
    output:
        config=f"{LANGUAGE_TOP}/models/{{model}}/config.json",
        weights=f"{LANGUAGE_TOP}/models/{{model}}/model.safetensors",
    log:
        f"{LANGUAGE_LOGS}/pretrain/{{model}}.log",
    benchmark:
        f"{LANGUAGE_COSTS}/pretrain/{{model}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        entry=lambda wc: {key: MODELS[wc.model][key] for key in ("size", "corpus")},
        recipe=lambda wc: as_json(MODELS[wc.model]["recipe"]),
        out=subpath(output.config, parent=True),
        checkpoint=f"{LANGUAGE_TOP}/checkpoints/pretrain/{{model}}.safetensors",
    shell:
        "prt language pretrain --size {params.entry[size]} --corpus {params.entry[corpus]} "
        "--recipe {params.recipe:q} --out {params.out} --checkpoint {params.checkpoint} 2> {log}"


# The chats, checked, and split into training and validation.
rule prepare_chats:
    input:
        chats_receipt(),
    output:
        f"{LANGUAGE_TOP}/data/manifest.json",
    log:
        f"{LANGUAGE_LOGS}/prepare_chats.log",
    benchmark:
        f"{LANGUAGE_COSTS}/prepare_chats.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        source=chats_source(),
        validation=LANGUAGE["data"].get("validation", 0.02),
        downloads=LANGUAGE_DOWNLOADS,
        out=subpath(output[0], parent=True),
    shell:
        "prt language prepare --source {params.source:q} --downloads {params.downloads:q} --validation {params.validation} "
        "--out {params.out} 2> {log}"


# Instruction tuning: ft and prt_ALPHA, and ft-lora and prt-lora_ALPHA.
rule tune_language:
    input:
        lambda wc: model_files(model_folder(wc.model)),
        f"{LANGUAGE_TOP}/data/manifest.json",
    output:
        per_run(TUNED_MODEL),
    log:
        per_run_name(f"{LANGUAGE_LOGS}/tune/{{model}}.{{tuning}}", "log"),
    benchmark:
        per_run_name(f"{LANGUAGE_COSTS}/tune/{{model}}.{{tuning}}", "tsv")
    conda:
        "../../environment.yml"
    threads: lambda wc: cores_of(gpus_of_tuning(wc))
    resources:
        mem_mb=memory_of_tuning,
        nodes=1,
        runtime=growing(1440),
        gpu=gpus_of_tuning,
        device=lambda wc: "cuda" if gpus_of_tuning(wc) else "cpu",
    params:
        launch=launch,
        spec=lambda wc: model_folder(wc.model),
        data=subpath(input[1], parent=True),
        method=lambda wc: wc.tuning.partition("_")[0].removesuffix("-lora"),
        alpha=lambda wc: wc.tuning.partition("_")[2] or 0,
        recipe=lambda wc: as_json(tuning_recipe(wc)),
        lora=lora_settings,
        template=LANGUAGE["data"].get("template", "tulu"),
        dataset=slug(LANGUAGE["data"]["source"]),
        seeds=lambda wc: [f"--seed {seed}" for seed in seeds_of_job(wc)],
        out=subpath(output[0], ancestor=2),
        checkpoints=per_run_name(
            f"{LANGUAGE_TOP}/checkpoints/{{model}}/{{tuning}}", "run"
        ),
    shell:
        "{params.launch} prt language tune --spec {params.spec:q} --name {wildcards.model} --data {params.data} --dataset {params.dataset} "
        "--method {params.method} --alpha {params.alpha} --recipe {params.recipe:q} {params.lora} "
        "--template {params.template} {params.seeds} --out {params.out} --checkpoints {params.checkpoints} "
        "--device {resources.device} 2> {log}"


# A target on a benchmark: alone, with a reward, with EFT, …
rule evaluate:
    input:
        evaluation_needs,
    output:
        directory(f"{LANGUAGE_TOP}/evaluated/{{benchmark}}/{{target}}/{{batch}}"),
    log:
        f"{LANGUAGE_LOGS}/evaluate/{{benchmark}}.{{target}}.{{batch}}.log",
    benchmark:
        f"{LANGUAGE_COSTS}/evaluate/{{benchmark}}.{{target}}.{{batch}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda wc: cores_of(gpus_of_model(wc))
    resources:
        mem_mb=lambda wc, attempt: int(8000 + 3000 * weights_of(wc)) * attempt,
        runtime=minutes_of_evaluation,
        gpu=gpus_of_model,
        device=lambda wc: "cuda" if gpus_of_model(wc) else "cpu",
    params:
        spec=lambda wc: model_folder(wc.target),
        settings=lambda wc: as_json(benchmark_settings(wc.benchmark)),
        cells=lambda wc: [
            f"--cell {shlex.quote(as_json(cell_facts(wc.benchmark, wc.target, name)))}"
            for name in cells_of_job(wc)
        ],
        template=LANGUAGE["data"].get("template", "tulu"),
        precision=LANGUAGE["recipe"].get("precision", "bf16"),
        unsafe="--unsafe-code" if LANGUAGE.get("unsafe_code") else "",
    shell:
        "prt language evaluate --target {params.spec:q} --name {wildcards.target} --benchmark {wildcards.benchmark} "
        "--settings {params.settings:q} {params.cells} --template {params.template} --precision {params.precision} {params.unsafe} "
        "--device {resources.device} --out {output} 2> {log}"


# The transfer tables of one item or one benchmark.
rule language_transfer:
    input:
        lambda wc: measured(wc.part),
    output:
        expand(
            f"{LANGUAGE_TOP}/transfer/{{part}}/{{table}}.csv",
            table=["transfer", "summary", "comparison"],
            allow_missing=True,
        ),
    log:
        f"{LANGUAGE_LOGS}/transfer/{{part}}.log",
    benchmark:
        f"{LANGUAGE_COSTS}/transfer/{{part}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        pairs=lambda wc: language_pairs(wc.part),
        out=subpath(output[0], parent=True),
    shell:
        "prt language transfer {input} {params.pairs} --out {params.out} 2> {log}"


# The tables of all benchmarks in one: transfer.csv, summary.csv, comparison.csv.
rule language_collect:
    input:
        expand(
            f"{LANGUAGE_TOP}/transfer/{{benchmark}}/{{table}}.csv",
            benchmark=[name for name in BENCHMARKS if pairs_of_part(name)],
            allow_missing=True,
        ),
    output:
        report(
            f"{LANGUAGE_TOP}/{{table}}.csv",
            category="Tables",
            labels={"table": "language: {table}"},
            caption="../report/language_tables.rst",
        ),
    log:
        f"{LANGUAGE_LOGS}/collect/{{table}}.log",
    benchmark:
        f"{LANGUAGE_COSTS}/collect/{{table}}.tsv"
    wildcard_constraints:
        table="transfer|summary|comparison",
    group:
        "collected"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    shell:
        "prt collect {input} --out {output} 2> {log}"
