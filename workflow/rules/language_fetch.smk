# Needs: a network. Makes: DOWNLOADS/…, the language models and data of others.

# Names of folders → what is fetched.
HUB_MODELS = {Path(folder).name: name for folder, name in hub_models().items()}
REPOSITORIES = {
    Path(benchmark_folder(name)).name: task for name, task in hub_benchmarks().items()
}


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
        f"{LANGUAGE_DOWNLOADS}/{{chats}}.json",
    log:
        f"{LANGUAGE_LOGS}/fetch/{{chats}}.log",
    wildcard_constraints:
        chats=re.escape(slug(LANGUAGE["data"]["source"])),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        source=LANGUAGE["data"]["source"],
        downloads=subpath(output[0], parent=True),
    shell:
        "prt language fetch-chats --source {params.source:q} --downloads {params.downloads:q} --out {output:q} 2> {log}"


# The data of benchmarks; some have them in one repository.
rule fetch_benchmark:
    output:
        f"{LANGUAGE_DOWNLOADS}/benchmarks/{{repository}}.json",
    log:
        f"{LANGUAGE_LOGS}/fetch/{{repository}}.log",
    wildcard_constraints:
        repository="|".join(map(re.escape, REPOSITORIES)),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        benchmark=lambda wc: REPOSITORIES[wc.repository],
        downloads=subpath(output[0], ancestor=2),
    shell:
        "prt language fetch-benchmark --benchmark {params.benchmark} --downloads {params.downloads:q} "
        "--out {output:q} 2> {log}"
