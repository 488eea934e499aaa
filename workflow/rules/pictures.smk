# Needs: the tables. Makes: results/EXPERIMENT/figures/…, every figure and table of the paper.


# Figures 5, 8 and 9: the next token with and without the reward.
rule next_tokens:
    input:
        ASK.needs("next_tokens"),
    output:
        f"{LANGUAGE}/next_tokens/{{job}}.json",
    log:
        f"{LOGS}/next_tokens/{{job}}.log",
    benchmark:
        f"{COSTS}/next_tokens/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("next_tokens"),
    conda:
        "../../environment.yml"
    threads: ASK.cores("next_tokens")
    resources:
        mem_mb=ASK.megabytes(64000),
        runtime=ASK.time(30),
        gpu=ASK.gpus("next_tokens"),
        device=ASK.device("next_tokens"),
    params:
        config=CONFIG,
        about=ASK.about("next_tokens"),
    shell:
        "prt run next_tokens {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"


# A picture alone, or, with `jobs: few`, all that are drawn of the same tables.
for job in PLAN.jobs.of("draw"):

    rule:
        name:
            f"draw_{job.name}"
        input:
            job.needs,
        output:
            [
                report(
                    f"{stem}.png",
                    category="Tables" if stem.endswith("_table") else item.category,
                    labels={"item": item.title},
                    caption=f"../report/{item.caption}.rst",
                )
                for item in PLAN.drawn_by(job.name)
                for stem in item.pictures
            ],
            [file for file in job.makes if not file.endswith(".png")],
        log:
            f"{LOGS}/draw/{job.name}.log",
        benchmark:
            f"{COSTS}/draw/{job.name}.tsv"
        group:
            job.group
        conda:
            "../../environment.yml"
        resources:
            mem_mb=ASK.megabytes(2000),
            runtime=ASK.time(10),
        params:
            config=CONFIG,
            job=job.name,
            about=job.fingerprint,
        shell:
            "prt run draw {params.job} --config {params.config} 2> {log}"


# `snakemake figure2`, `snakemake digits`, … make or complete one item, data set or benchmark.
for target, files in PLAN.targets().items():

    rule:
        name:
            target
        input:
            files,
        localrule: True
