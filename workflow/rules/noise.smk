# Needs: the clean data set, its heads and its rewards, of vision.smk.
# Makes: Table 5: a reward tuned on clean images, tested on noisy ones, then tuned further on these.


# The pretrained models on noisy images; the heads are the clean data set's.
rule score_noise:
    input:
        backbone_files,
        data=f"{TOP}/data/{NOISY}/manifest.json",
        head=f"{TOP}/heads/{CLEAN}/{{backbone}}.safetensors",
    output:
        [f"{TOP}/scores/{NOISY}/{{backbone}}/{file}" for file in SCORES],
    log:
        f"{LOGS}/score_noise/{{backbone}}.log",
    benchmark:
        f"{COSTS}/score_noise/{{backbone}}.tsv"
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
        dataset=NOISY,
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
        recipe=scoring_recipe(),
        workers=workers,
    shell:
        "prt vision score --spec {params.spec:q} --backbone {wildcards.backbone} --dataset {params.dataset} "
        "--data {params.data} --head {input.head} --recipe {params.recipe:q} --out {params.out} "
        "--workers {params.workers} --device {resources.device} 2> {log}"


# The rewards as they were tuned on clean images, on noisy ones.
rule score_rewards:
    input:
        per_seed(
            f"{TOP}/tuned/{CLEAN}/{{backbone}}/prt_0/{{shots}}",
            ["weights.safetensors"],
        ),
        runs=per_seed(
            f"{TOP}/tuned/{CLEAN}/{{backbone}}/prt_0/{{shots}}", ["manifest.json"]
        ),
        data=f"{TOP}/data/{NOISY}/manifest.json",
    output:
        per_seed(f"{TOP}/tuned/{NOISY}/{{backbone}}/untuned/{{shots}}", SCORES),
    log:
        per_seed_name(f"{LOGS}/score_rewards/{{backbone}}.{{shots}}", "log"),
    benchmark:
        per_seed_name(f"{COSTS}/score_rewards/{{backbone}}.{{shots}}", "tsv")
    conda:
        "../../environment.yml"
    threads: cores
    resources:
        mem_mb=growing(16000),
        runtime=growing(60),
        gpu=gpus,
        device=device,
    params:
        runs=lambda wc, input: [str(Path(file).parent) for file in input.runs],
        dataset=NOISY,
        data=subpath(input.data, parent=True),
        out=subpath(output[0], ancestor=3),
        workers=workers,
    shell:
        "prt vision score-rewards {params.runs} --dataset {params.dataset} --data {params.data} --out {params.out} "
        "--workers {params.workers} --device {resources.device} 2> {log}"


# The same rewards, tuned for a few more iterations on noisy images.
use rule tune as retune with:
    input:
        backbone_files,
        per_seed(
            f"{TOP}/tuned/{CLEAN}/{{backbone}}/prt_0/{{shots}}",
            ["manifest.json", "weights.safetensors"],
        ),
        data=f"{TOP}/data/{{dataset}}/manifest.json",
        head=f"{TOP}/heads/{CLEAN}/{{backbone}}.safetensors",
    log:
        per_seed_name(
            f"{LOGS}/retune/{{dataset}}.{{backbone}}.{{run}}.{{shots}}", "log"
        ),
    benchmark:
        per_seed_name(
            f"{COSTS}/retune/{{dataset}}.{{backbone}}.{{run}}.{{shots}}", "tsv"
        )
    wildcard_constraints:
        dataset=NOISY,
        run="retuned",
    params:
        spec=spec,
        data=subpath(input.data, parent=True),
        method="prt",
        alpha=0,
        regimes=lambda wc: as_json(retuning(wc)),
        seeds=lambda wc: [f"--seed {seed}" for seed in seeds(wc)],
        initial=f"--initial {TOP}/tuned/{CLEAN}/{{backbone}}/prt_0",
        every=0,
        out=subpath(output[0], ancestor=3),
        checkpoints=f"{TOP}/checkpoints/{{dataset}}/{{backbone}}/{{run}}",
        workers=workers,


# Accuracy of every target with every reward, from the cached scores.
rule noise:
    input:
        pretrained=expand(
            f"{TOP}/scores/{{dataset}}/{{backbone}}/test.safetensors",
            dataset=[CLEAN, NOISY],
            backbone=noise_targets(),
        ),
        untuned=noise_scores(CLEAN, "prt_0") + noise_scores(NOISY, "untuned"),
        tuned=noise_scores(NOISY, "retuned"),
    output:
        report(
            f"{TOP}/table5.csv",
            category="Tables",
            labels={"table": "noise"},
            caption="../report/table5.rst",
        ),
    log:
        f"{LOGS}/noise.log",
    benchmark:
        f"{COSTS}/noise.tsv"
    group:
        "tables"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        files=lambda wc, input: [
            f"--{key} {path}"
            for key in ("pretrained", "untuned", "tuned")
            for path in input[key]
        ],
    shell:
        "prt noise {params.files} --out {output} 2> {log}"


# Table 5.
rule table5:
    input:
        f"{TOP}/table5.csv",
    output:
        drawn(
            "table5",
            category="Tables",
            labels={"table": "Table 5"},
            caption="../report/table5.rst",
        ),
    log:
        f"{LOGS}/figures/table5.log",
    benchmark:
        f"{COSTS}/figures/table5.tsv"
    group:
        "tables"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        out=subpath(output[0], strip_suffix=".png"),
    shell:
        "prt figure noise-table --table {input} --out {params.out} 2> {log}"
