# Needs: the networks' architectures; weights are random, as speed and memory do not depend on them.
# Makes: Tables 1 and 2, time and memory of training and of inference.
# Away from a cluster a job holds all cores, so that no other job of this run disturbs it. It computes on one: several
# threads would wait for each other wherever another process takes a core.

# The networks of Table 2.
PAIRED = list(
    dict.fromkeys(name for pair in VISION["costs"]["inference"] for name in pair)
)


# Table 1: an iteration of fine-tuning and of reward tuning.
rule measure_training:
    input:
        network_files(VISION["costs"]["training"]),
    output:
        report(
            f"{TOP}/table1.csv",
            category="Tables",
            labels={"table": "training costs"},
            caption="../report/table1.rst",
        ),
    log:
        f"{LOGS}/table1.log",
    benchmark:
        f"{COSTS}/table1.tsv"
    conda:
        "../../environment.yml"
    threads: alone(gpus_of_costs())
    resources:
        mem_mb=growing(32000),
        runtime=growing(60),
        gpu=gpus_of_costs(),
        device="cuda" if gpus_of_costs() else "cpu",
    params:
        models=[f"--model {network(name)}" for name in VISION["costs"]["training"]],
        batch=VISION["costs"]["batch"],
        precision=VISION["recipe"].get("precision", "fp32"),
        repeats=VISION["costs"]["repeats"],
    shell:
        "OMP_NUM_THREADS=1 prt vision benchmark-training {params.models} --batch {params.batch} --precision {params.precision} "
        "--repeats {params.repeats} --device {resources.device} --out {output} 2> {log}"


# Table 2: a batch through the target alone, EFT and PRT.
rule measure_inference:
    input:
        network_files(PAIRED),
    output:
        report(
            f"{TOP}/table2.csv",
            category="Tables",
            labels={"table": "inference costs"},
            caption="../report/table2.rst",
        ),
    log:
        f"{LOGS}/table2.log",
    benchmark:
        f"{COSTS}/table2.tsv"
    conda:
        "../../environment.yml"
    threads: alone(gpus_of_costs())
    resources:
        mem_mb=growing(32000),
        runtime=growing(60),
        gpu=gpus_of_costs(),
        device="cuda" if gpus_of_costs() else "cpu",
    params:
        models=[f"--model {network(name)}" for name in PAIRED],
        pairs=[
            f"--pair {source}:{target}"
            for source, target in VISION["costs"]["inference"]
        ],
        batch=VISION["costs"]["batch"],
        repeats=VISION["costs"]["repeats"],
        compile="--compile" if VISION["costs"].get("compile", True) else "--no-compile",
    shell:
        "OMP_NUM_THREADS=1 prt vision benchmark-inference {params.models} {params.pairs} --batch {params.batch} "
        "--repeats {params.repeats} {params.compile} --device {resources.device} --out {output} 2> {log}"


rule table1:
    input:
        f"{TOP}/table1.csv",
    output:
        drawn(
            "table1",
            category="Tables",
            labels={"table": "Table 1"},
            caption="../report/table1.rst",
        ),
    log:
        f"{LOGS}/figures/table1.log",
    benchmark:
        f"{COSTS}/figures/table1.tsv"
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
        "prt figure costs-table --table {input} --out {params.out} 2> {log}"


use rule table1 as table2 with:
    input:
        f"{TOP}/table2.csv",
    output:
        drawn(
            "table2",
            category="Tables",
            labels={"table": "Table 2"},
            caption="../report/table2.rst",
        ),
    log:
        f"{LOGS}/figures/table2.log",
    benchmark:
        f"{COSTS}/figures/table2.tsv"
