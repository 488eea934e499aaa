# Portable Reward Tuning: the table of contents.
# `snakemake` makes everything; `snakemake figure2`, `snakemake digits`, … make one item or one data set.
from snakemake.utils import min_version

min_version("9.27")

if "experiment" not in config:

    configfile: "config/demo.yaml"


include: "workflow/rules/common.smk"


rule all:
    input:
        f"{TOP}/transfer.csv",
        f"{TOP}/comparison.csv",
        f"{TOP}/validation.csv",
        f"{FIGURES}/figure2.pdf",
        f"{FIGURES}/figure6a.pdf",
        f"{FIGURES}/figure6b.pdf",
        f"{FIGURES}/table7.pdf",
        f"{FIGURES}/strength.pdf",
    localrule: True


include: "workflow/rules/vision.smk"
include: "workflow/rules/paper.smk"
