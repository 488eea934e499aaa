# Portable Reward Tuning: the table of contents.
# `snakemake` makes everything; `snakemake figure2`, `snakemake digits`, … make one item, data set or benchmark.
from snakemake.utils import min_version

min_version("9.27")

if "experiment" not in config:

    configfile: "config/demo.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/cluster.smk"


# A configuration has a vision half, a language half or both.
if "vision" in config:

    include: "workflow/rules/vision_common.smk"


if "language" in config:

    include: "workflow/rules/language_common.smk"


rule all:
    input:
        vision_items() if "vision" in config else [],
        language_items() if "language" in config else [],
    localrule: True


# Models and data of others; everything else runs without a network.
rule fetch:
    input:
        vision_downloads() if "vision" in config else [],
        language_downloads() if "language" in config else [],
    localrule: True


onstart:
    check_cluster()
    write_configuration()


if "vision" in config:

    include: "workflow/rules/fetch.smk"
    include: "workflow/rules/vision.smk"
    include: "workflow/rules/paper.smk"

    # What a configuration may leave out.
    if "ledger" in VISION:

        include: "workflow/rules/ledger.smk"

    if "table5" in VISION:

        include: "workflow/rules/noise.smk"

    if "costs" in VISION:

        include: "workflow/rules/costs.smk"

    # `snakemake DATASET` makes or completes what belongs to one data set.
    for dataset in DATASETS:
        refuse_taken_name(dataset, "data set", workflow.rules)

        rule:
            name:
                dataset
            input:
                f"{TOP}/transfer/test/{dataset}/transfer.csv",
                f"{TOP}/transfer/validation/{dataset}/transfer.csv",
            localrule: True


if "language" in config:

    include: "workflow/rules/language_fetch.smk"
    include: "workflow/rules/language.smk"
    include: "workflow/rules/language_paper.smk"

    # `snakemake BENCHMARK` makes or completes what belongs to one benchmark.
    for benchmark in BENCHMARKS:
        refuse_taken_name(benchmark, "benchmark", workflow.rules)

        rule:
            name:
                benchmark
            input:
                f"{LANGUAGE_TOP}/transfer/{benchmark}/transfer.csv",
            localrule: True
