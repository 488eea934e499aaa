# Portable Reward Tuning: the table of contents.
# `snakemake` makes everything; `snakemake figure2`, `snakemake digits`, … make one item or one data set.
from snakemake.utils import min_version

min_version("9.27")

if "experiment" not in config:

    configfile: "config/demo.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/cluster.smk"


rule all:
    input:
        f"{TOP}/transfer.csv",
        f"{TOP}/theory.csv",
        f"{TOP}/comparison.csv",
        f"{TOP}/validation.csv",
        f"{FIGURES}/figure2.pdf",
        f"{FIGURES}/figure6a.pdf",
        f"{FIGURES}/figure6b.pdf",
        f"{FIGURES}/table7.pdf",
        f"{FIGURES}/strength.pdf",
        configured_items(),
    localrule: True


onstart:
    check_cluster()
    write_configuration()


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
    refuse_taken_name(dataset, workflow.rules)

    rule:
        name:
            dataset
        input:
            f"{TOP}/transfer/test/{dataset}/transfer.csv",
            f"{TOP}/transfer/validation/{dataset}/transfer.csv",
        localrule: True
