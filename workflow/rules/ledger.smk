# Needs: the zero-shot scores of vision.smk, and a table of published accuracies.
# Makes: results/EXPERIMENT/vision/ledger/…, the table and the picture of their differences.


# Before anything is tuned on a data set: is every backbone's zero-shot accuracy what was published?
rule check_zero_shot:
    input:
        scores=lambda wc: expand(
            f"{TOP}/scores/{wc.dataset}/{{backbone}}/test.safetensors",
            backbone=backbones_of(wc.dataset),
        ),
        published=VISION["ledger"]["published"],
    output:
        f"{TOP}/ledger/{{dataset}}.csv",
    log:
        f"{LOGS}/ledger/{{dataset}}.log",
    benchmark:
        f"{COSTS}/ledger/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        tolerance=VISION["ledger"].get("tolerance", 0.02),
    shell:
        "prt ledger {input.scores} --published {input.published:q} --tolerance {params.tolerance} "
        "--out {output} 2> {log}"


# With `beyond: stop` nothing is tuned on a data set whose accuracies differ; the table and the picture are made anyway.
rule approve_zero_shot:
    input:
        f"{TOP}/ledger/{{dataset}}.csv",
    output:
        touch(f"{TOP}/ledger/{{dataset}}.approved"),
    log:
        f"{LOGS}/ledger/{{dataset}}.approved.log",
    retries: 0
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "prt approve {input} 2> {log}"


use rule collect as collect_ledger with:
    input:
        expand(f"{TOP}/ledger/{{dataset}}.csv", dataset=DATASETS),
    output:
        f"{TOP}/ledger.csv",
    log:
        f"{LOGS}/collect/ledger.log",
    benchmark:
        f"{COSTS}/collect/ledger.tsv"
    group:
        "tables"


rule ledger:
    input:
        f"{TOP}/ledger.csv",
    output:
        drawn(
            "ledger",
            category="Figures",
            labels={"item": "Zero-shot ledger"},
            caption="../report/ledger.rst",
        ),
    log:
        f"{LOGS}/figures/ledger.log",
    benchmark:
        f"{COSTS}/figures/ledger.tsv"
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
        "prt figure ledger --table {input} --out {params.out} 2> {log}"
