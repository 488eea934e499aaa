# Needs: a network. Makes: DOWNLOADS/…, the language models and data of others.

# Names of folders → what is fetched.
HUB_MODELS = {Path(folder).name: name for folder, name in hub_models().items()}


# Weights and tokenizer of a model of the Hugging Face hub.
rule fetch_model:
    output:
        f"{LANGUAGE_DOWNLOADS}/models/{{folder}}/fetched.json",
    log:
        f"{LANGUAGE_LOGS}/fetch/{{folder}}.log",
    wildcard_constraints:
        folder="|".join(map(re.escape, HUB_MODELS)),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=lambda wc: HUB_MODELS[wc.folder],
        out=subpath(output[0], parent=True),
    shell:
        "prt language fetch-model --spec {params.spec:q} --out {params.out:q} 2> {log}"


# The chats that models are tuned on.
rule fetch_chats:
    output:
        f"{LANGUAGE_DOWNLOADS}/{{folder}}/fetched.json",
    log:
        f"{LANGUAGE_LOGS}/fetch/{{folder}}.log",
    wildcard_constraints:
        folder=re.escape(slug(LANGUAGE["data"]["source"])),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        source=LANGUAGE["data"]["source"],
        out=subpath(output[0], parent=True),
    shell:
        "prt language fetch-chats --source {params.source:q} --out {params.out:q} 2> {log}"


# The data of a benchmark.
rule fetch_benchmark:
    output:
        f"{LANGUAGE_DOWNLOADS}/benchmarks/{{benchmark}}/fetched.json",
    log:
        f"{LANGUAGE_LOGS}/fetch/{{benchmark}}.log",
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        out=subpath(output[0], parent=True),
    shell:
        "prt language fetch-benchmark --benchmark {wildcards.benchmark} --out {params.out:q} 2> {log}"
