# Portable Reward Tuning: the table of contents.
# `snakemake` makes everything; `snakemake figure2`, `snakemake digits`, … make one item, data set or benchmark.
from snakemake.utils import min_version

min_version("9.27")

if "experiment" not in config:

    configfile: "config/demo.yaml"


include: "workflow/rules/common.smk"


rule all:
    input:
        PLAN.everything(),
    localrule: True


# Models and data of others; everything else runs without a network.
rule fetch:
    input:
        PLAN.downloads(),
    localrule: True


onstart:
    start()


onerror:
    complain()


include: "workflow/rules/fetch.smk"
include: "workflow/rules/vision.smk"
include: "workflow/rules/language.smk"
include: "workflow/rules/costs.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/pictures.smk"
