# Needs: the tidy tables of vision.smk.
# Makes: results/EXPERIMENT/figures/…, every figure and table of the paper, each a target of its own.


# Figure 2: transfer across backbones.
rule figure2:
    input:
        summaries(shown_in("figure2")),
    output:
        drawn(
            "figure2",
            category="Figures",
            labels={"item": "Figure 2"},
            caption="../report/figure2.rst",
        ),
    log:
        f"{LOGS}/figures/figure2.log",
    benchmark:
        f"{COSTS}/figures/figure2.tsv"
    group:
        "collected"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        tables=lambda wc, input: [f"--table {path}" for path in input],
        panels=as_json(VISION["panels"]),
        out=subpath(output[0], strip_suffix=".png"),
    shell:
        "prt figure transfer-bars {params.tables} --out {params.out} --panels {params.panels:q} 2> {log}"


# Figure 12: the same for the other data sets.
if "figure12" in VISION:

    use rule figure2 as figure12 with:
        input:
            summaries(shown_in("figure12")),
        output:
            drawn(
                "figure12",
                category="Figures",
                labels={"item": "Figure 12"},
                caption="../report/figure2.rst",
            ),
        log:
            f"{LOGS}/figures/figure12.log",
        benchmark:
            f"{COSTS}/figures/figure12.tsv"


# Figure 6a: accuracy over iterations for each α.
rule curves:
    input:
        figure6_runs("curve.csv"),
        manifests=figure6_runs("manifest.json"),
    output:
        f"{TOP}/curves.csv",
    log:
        f"{LOGS}/curves.log",
    benchmark:
        f"{COSTS}/curves.tsv"
    group:
        "tables"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        runs=figure6_runs(""),
    shell:
        "prt curves {params.runs} --out {output} 2> {log}"


rule figure6a:
    input:
        f"{TOP}/curves.csv",
    output:
        drawn(
            "figure6a",
            category="Figures",
            labels={"item": "Figure 6a"},
            caption="../report/figure6a.rst",
        ),
    log:
        f"{LOGS}/figures/figure6a.log",
    benchmark:
        f"{COSTS}/figures/figure6a.tsv"
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
        "prt figure entropy-curves --table {input} --out {params.out} 2> {log}"


# Figure 6b: transfer accuracy for each α.
rule figure6b:
    input:
        summaries([VISION["figure6"]["dataset"]]),
    output:
        drawn(
            "figure6b",
            category="Figures",
            labels={"item": "Figure 6b"},
            caption="../report/figure6b.rst",
        ),
    log:
        f"{LOGS}/figures/figure6b.log",
    benchmark:
        f"{COSTS}/figures/figure6b.tsv"
    group:
        "tables"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        select=selection("figure6"),
        out=subpath(output[0], strip_suffix=".png"),
    shell:
        "prt figure entropy-transfer --table {input} --out {params.out} --select {params.select:q} 2> {log}"


rule figure6:
    input:
        rules.figure6a.output,
        rules.figure6b.output,
    localrule: True


# Table 7: ε of each pair and C of the reward.
rule table7:
    input:
        f"{TOP}/transfer/test/{VISION['table7']['dataset']}/theory.csv",
    output:
        drawn(
            "table7",
            category="Tables",
            labels={"table": "Table 7"},
            caption="../report/table7.rst",
        ),
    log:
        f"{LOGS}/figures/table7.log",
    benchmark:
        f"{COSTS}/figures/table7.tsv"
    group:
        "tables"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        select=selection("table7"),
        out=subpath(output[0], strip_suffix=".png"),
    shell:
        "prt figure theory-table --table {input} --out {params.out} --select {params.select:q} 2> {log}"


# Accuracy against the reward's strength 1/λ; the paper has λ = 1 throughout.
rule strength:
    input:
        f"{TOP}/summary.csv",
    output:
        drawn(
            "strength",
            category="Figures",
            labels={"item": "Strength"},
            caption="../report/strength.rst",
        ),
    log:
        f"{LOGS}/figures/strength.log",
    benchmark:
        f"{COSTS}/figures/strength.tsv"
    group:
        "collected"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        out=subpath(output[0], strip_suffix=".png"),
    shell:
        "prt figure strength --table {input} --out {params.out} 2> {log}"


# The paper's Tables 1, 2, 5 and 7 beside ours.
if {"costs", "table5"} <= VISION.keys():

    rule beside:
        input:
            paper=workflow.source_path("../../config/published/paper.csv"),
            costs=[f"{TOP}/table1.csv", f"{TOP}/table2.csv"],
            noise=f"{TOP}/table5.csv",
            theory=f"{FIGURES}/table7.csv",
        output:
            drawn(
                "beside",
                category="Figures",
                labels={"item": "Paper beside ours"},
                caption="../report/beside.rst",
            ),
            table=report(
                f"{FIGURES}/beside_table.png",
                category="Tables",
                labels={"table": "Paper beside ours"},
                caption="../report/beside.rst",
            ),
            pdf=f"{FIGURES}/beside_table.pdf",
            numbers=f"{TOP}/beside.csv",
        log:
            f"{LOGS}/figures/beside.log",
        benchmark:
            f"{COSTS}/figures/beside.tsv"
        group:
            "tables"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=growing(2000),
            runtime=growing(10),
        params:
            costs=lambda wc, input: [f"--costs {path}" for path in input.costs],
            names=as_json(
                {
                    name: entry["paper"]
                    for name, entry in BACKBONES.items()
                    if "paper" in entry
                }
            ),
            clean=CLEAN,
            out=subpath(output[0], strip_suffix=".png"),
        shell:
            "(prt beside --paper {input.paper} {params.costs} --noise {input.noise} --theory {input.theory} "
            "--clean {params.clean} --names {params.names:q} --out {output.numbers} && "
            "prt figure beside --table {output.numbers} --out {params.out}) 2> {log}"
