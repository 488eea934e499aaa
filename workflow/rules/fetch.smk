# Needs: a network. Makes: DOWNLOADS/…, the models and data of others; everything else runs without a network.
VISION_DOWNLOADS = PLAN.vision.config.downloads if PLAN.vision else "downloads"
LANGUAGE_DOWNLOADS = PLAN.language.config.downloads if PLAN.language else "downloads"


# Weights of an open_clip tag, as a folder in open_clip's own format.
rule fetch_backbone:
    output:
        f"{VISION_DOWNLOADS}/backbones/{{job}}/open_clip_config.json",
        f"{VISION_DOWNLOADS}/backbones/{{job}}/open_clip_model.safetensors",
    log:
        f"{LOGS}/fetch_backbone/{{job}}.log",
    wildcard_constraints:
        job=ASK.names("fetch_backbone"),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIG,
        about=ASK.about("fetch_backbone"),
    shell:
        "prt run fetch_backbone {wildcards.job} --config {params.config} 2> {log}"


# The files of an image data set, as its publisher gives them.
rule fetch_dataset:
    output:
        f"{VISION_DOWNLOADS}/{{job}}.json",
    log:
        f"{LOGS}/fetch_dataset/{{job}}.log",
    wildcard_constraints:
        job=ASK.names("fetch_dataset"),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIG,
        about=ASK.about("fetch_dataset"),
    shell:
        "prt run fetch_dataset {wildcards.job} --config {params.config} 2> {log}"


# Weights and tokenizer of a model of the Hugging Face hub.
rule fetch_model:
    output:
        f"{LANGUAGE_DOWNLOADS}/models/{{job}}/fetched.json",
    log:
        f"{LOGS}/fetch_model/{{job}}.log",
    wildcard_constraints:
        job=ASK.names("fetch_model"),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIG,
        about=ASK.about("fetch_model"),
    shell:
        "prt run fetch_model {wildcards.job} --config {params.config} 2> {log}"


# The chats that models are tuned on.
rule fetch_chats:
    output:
        f"{LANGUAGE_DOWNLOADS}/{{job}}.json",
    log:
        f"{LOGS}/fetch_chats/{{job}}.log",
    wildcard_constraints:
        job=ASK.names("fetch_chats"),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIG,
        about=ASK.about("fetch_chats"),
    shell:
        "prt run fetch_chats {wildcards.job} --config {params.config} 2> {log}"


# The data of benchmarks; some have them in one repository.
rule fetch_benchmark:
    output:
        f"{LANGUAGE_DOWNLOADS}/benchmarks/{{job}}.json",
    log:
        f"{LOGS}/fetch_benchmark/{{job}}.log",
    wildcard_constraints:
        job=ASK.names("fetch_benchmark"),
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIG,
        about=ASK.about("fetch_benchmark"),
    shell:
        "prt run fetch_benchmark {wildcards.job} --config {params.config} 2> {log}"
