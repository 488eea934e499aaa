# Needs: the networks; those of Tables 1 and 2 have random weights, as speed and memory do not depend on them.
# Makes: Tables 1 and 2 (time and memory of training and of inference) and Table 3 (decoding) of results/EXPERIMENT.
# Away from a cluster a job holds all cores, so that no other job of this run disturbs it. It computes on one: several
# threads would wait for each other wherever another process takes a core.


# Table 1: an iteration of fine-tuning and of reward tuning.
rule measure_training:
    input:
        ASK.needs("measure_training"),
    output:
        report(
            f"{VISION}/{{job}}.csv",
            category="Tables",
            labels={"table": "training costs"},
            caption="../report/table1.rst",
        ),
    log:
        f"{LOGS}/measure_training/{{job}}.log",
    benchmark:
        f"{COSTS}/measure_training/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("measure_training"),
    conda:
        "../../environment.yml"
    threads: ASK.alone("measure_training", workflow)
    resources:
        mem_mb=ASK.megabytes(32000),
        runtime=ASK.time(60),
        gpu=ASK.gpus("measure_training"),
        device=ASK.device("measure_training"),
    params:
        config=CONFIG,
        about=ASK.about("measure_training"),
    shell:
        "OMP_NUM_THREADS=1 prt run measure_training {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"


# Table 2: a batch through the target alone, EFT and PRT.
rule measure_inference:
    input:
        ASK.needs("measure_inference"),
    output:
        report(
            f"{VISION}/{{job}}.csv",
            category="Tables",
            labels={"table": "inference costs"},
            caption="../report/table2.rst",
        ),
    log:
        f"{LOGS}/measure_inference/{{job}}.log",
    benchmark:
        f"{COSTS}/measure_inference/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("measure_inference"),
    conda:
        "../../environment.yml"
    threads: ASK.alone("measure_inference", workflow)
    resources:
        mem_mb=ASK.megabytes(32000),
        runtime=ASK.time(60),
        gpu=ASK.gpus("measure_inference"),
        device=ASK.device("measure_inference"),
    params:
        config=CONFIG,
        about=ASK.about("measure_inference"),
    shell:
        "OMP_NUM_THREADS=1 prt run measure_inference {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"


# Table 3: the speed of decoding; the reward is that of the first seed, so that drafts are accepted as often as they are.
rule measure_decoding:
    input:
        ASK.needs("measure_decoding"),
    output:
        report(
            f"{LANGUAGE}/{{job}}.csv",
            category="Tables",
            labels={"table": "decoding speed"},
            caption="../report/table3.rst",
        ),
    log:
        f"{LOGS}/measure_decoding/{{job}}.log",
    benchmark:
        f"{COSTS}/measure_decoding/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("measure_decoding"),
    conda:
        "../../environment.yml"
    threads: ASK.alone("measure_decoding", workflow)
    resources:
        mem_mb=ASK.megabytes(64000),
        runtime=ASK.time(120),
        gpu=ASK.gpus("measure_decoding"),
        device=ASK.device("measure_decoding"),
    params:
        config=CONFIG,
        about=ASK.about("measure_decoding"),
    shell:
        "OMP_NUM_THREADS=1 prt run measure_decoding {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"
