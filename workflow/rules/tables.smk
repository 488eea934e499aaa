# Needs: what vision.smk and language.smk made. Makes: the tidy tables of both halves, and the zero-shot ledger.
# Rules of tables are made of the plan's jobs, which name all they read and make.


# Before anything is tuned on a data set: is every backbone's zero-shot accuracy what was published?
rule check_zero_shot:
    input:
        ASK.needs("check_zero_shot"),
    output:
        f"{VISION}/ledger/{{job}}.csv",
    log:
        f"{LOGS}/check_zero_shot/{{job}}.log",
    benchmark:
        f"{COSTS}/check_zero_shot/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("check_zero_shot"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=ASK.megabytes(4000),
        runtime=ASK.time(10),
    params:
        config=CONFIG,
        about=ASK.about("check_zero_shot"),
    shell:
        "prt run check_zero_shot {wildcards.job} --config {params.config} 2> {log}"


# With `beyond: stop` nothing is tuned on a data set whose accuracies differ; the table and the picture are made anyway.
rule approve_zero_shot:
    input:
        ASK.needs("approve_zero_shot"),
    output:
        f"{VISION}/ledger/{{job}}.approved",
    log:
        f"{LOGS}/approve_zero_shot/{{job}}.log",
    wildcard_constraints:
        job=ASK.names("approve_zero_shot"),
    retries: 0
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIG,
        about=ASK.about("approve_zero_shot"),
    shell:
        "prt run approve_zero_shot {wildcards.job} --config {params.config} 2> {log}"


# transfer, summary, comparison (and, of images, theory): of a data set and split, a benchmark, an item, or of several.
for job in PLAN.jobs.of("tables"):

    rule:
        name:
            f"tables_{job.name}"
        input:
            job.needs,
        output:
            job.makes,
        log:
            f"{LOGS}/tables/{job.name}.log",
        benchmark:
            f"{COSTS}/tables/{job.name}.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=ASK.megabytes(8000),
            runtime=ASK.time(30),
        params:
            config=CONFIG,
            job=job.name,
            about=job.fingerprint,
        shell:
            "prt run tables {params.job} --config {params.config} 2> {log}"


# The tables of all data sets, or of all benchmarks, in one.
for job in PLAN.jobs.of("collect"):

    rule:
        name:
            f"collect_{job.name}"
        input:
            job.needs,
        output:
            [
                report(
                    file,
                    category="Tables",
                    labels={"table": f"{job.name}: {Path(file).stem}"},
                    caption="../report/tables.rst",
                )
                for file in job.makes
            ],
        log:
            f"{LOGS}/collect/{job.name}.log",
        benchmark:
            f"{COSTS}/collect/{job.name}.tsv"
        group:
            "collected"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=ASK.megabytes(1000),
            runtime=ASK.time(10),
        params:
            config=CONFIG,
            job=job.name,
        shell:
            "prt run collect {params.job} --config {params.config} 2> {log}"
