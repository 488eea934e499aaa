# Needs: a network. Makes: DOWNLOADS/…, the weights and data of others; everything else runs without a network.

# Names of files → what is fetched.
TAGS = {slug(b["spec"]): b["spec"] for b in BACKBONES.values() if "spec" in b}
SOURCES = {slug(d["source"]): d["source"] for d in DATASETS.values()}


# Weights of an open_clip tag, as a folder in open_clip's own format.
rule fetch_backbone:
    output:
        config=f"{DOWNLOADS}/backbones/{{weights}}/open_clip_config.json",
        weights=f"{DOWNLOADS}/backbones/{{weights}}/open_clip_model.safetensors",
    log:
        f"{LOGS}/fetch/{{weights}}.log",
    wildcard_constraints:
        weights="|".join(map(re.escape, TAGS)),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=lambda wc: TAGS[wc.weights],
        out=subpath(output.config, parent=True),
    shell:
        "prt vision fetch-backbone --spec {params.spec:q} --out {params.out:q} 2> {log}"


# The files of a data set, as its publisher gives them.
rule fetch_dataset:
    output:
        f"{DOWNLOADS}/{{source}}.json",
    log:
        f"{LOGS}/fetch/{{source}}.log",
    wildcard_constraints:
        source="|".join(map(re.escape, SOURCES)),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        source=lambda wc: SOURCES[wc.source],
        downloads=subpath(output[0], parent=True),
    shell:
        "prt vision fetch --source {params.source:q} --downloads {params.downloads:q} --out {output:q} 2> {log}"
