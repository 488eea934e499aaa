# Needs: the models, chats and benchmarks of the configuration.
# Makes: results/EXPERIMENT/language/{models,chats,benchmarks,data,tuned,evaluated}/….
# A job makes all whose path begins with its name: one run or cell, or, with `jobs: few`, all of a model or target.


# The miniature family's chats and benchmarks: generated text.
rule write_text:
    output:
        f"{LANGUAGE}/chats/train.jsonl",
        f"{LANGUAGE}/chats/problems.jsonl",
        f"{LANGUAGE}/chats/instructions.jsonl",
        f"{LANGUAGE}/benchmarks/problems/test.jsonl",
        f"{LANGUAGE}/benchmarks/instructions/test.jsonl",
    log:
        f"{LOGS}/write_text.log",
    benchmark:
        f"{COSTS}/write_text.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=ASK.megabytes(2000),
        runtime=ASK.time(30),
    params:
        config=CONFIG,
    shell:
        "prt run write_text text --config {params.config} 2> {log}"


# Miniature models: pretrained on generated text, by size and corpus.
rule pretrain_language:
    input:
        ASK.needs("pretrain_language"),
    output:
        f"{LANGUAGE}/models/{{job}}/config.json",
        f"{LANGUAGE}/models/{{job}}/model.safetensors",
    log:
        f"{LOGS}/pretrain_language/{{job}}.log",
    benchmark:
        f"{COSTS}/pretrain_language/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("pretrain_language"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=ASK.megabytes(2000),
        runtime=ASK.time(30),
    params:
        config=CONFIG,
        about=ASK.about("pretrain_language"),
    shell:
        "prt run pretrain_language {wildcards.job} --config {params.config} 2> {log}"


# The chats, checked, and split into training and validation.
rule prepare_chats:
    input:
        ASK.needs("prepare_chats"),
    output:
        f"{LANGUAGE}/{{job}}/manifest.json",
    log:
        f"{LOGS}/prepare_chats/{{job}}.log",
    benchmark:
        f"{COSTS}/prepare_chats/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("prepare_chats"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=ASK.megabytes(8000),
        runtime=ASK.time(60),
    params:
        config=CONFIG,
        about=ASK.about("prepare_chats"),
    shell:
        "prt run prepare_chats {wildcards.job} --config {params.config} 2> {log}"


# Instruction tuning: ft and prt_ALPHA, and ft-lora and prt-lora_ALPHA.
rule tune_language:
    input:
        ASK.needs("tune_language"),
    output:
        directory(f"{LANGUAGE}/tuned/{{job}}"),
    log:
        f"{LOGS}/tune_language/{{job}}.log",
    benchmark:
        f"{COSTS}/tune_language/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("tune_language"),
    conda:
        "../../environment.yml"
    threads: ASK.cores("tune_language")
    resources:
        mem_mb=ASK.memory("tune_language", 16000, 7000, small=4000),
        runtime=ASK.time(1440),
        nodes=1,
        gpu=ASK.gpus("tune_language"),
        device=ASK.device("tune_language"),
    params:
        config=CONFIG,
        about=ASK.about("tune_language"),
        launch=ASK.launch("tune_language"),
    shell:
        "{params.launch} prt run tune_language {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"


# A target on a benchmark: alone, with a reward, with EFT, …
rule evaluate:
    input:
        ASK.needs("evaluate"),
    output:
        directory(f"{LANGUAGE}/evaluated/{{job}}"),
    log:
        f"{LOGS}/evaluate/{{job}}.log",
    benchmark:
        f"{COSTS}/evaluate/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("evaluate"),
    conda:
        "../../environment.yml"
    threads: ASK.cores("evaluate")
    resources:
        mem_mb=ASK.memory("evaluate", 8000, 3000),
        runtime=ASK.minutes("evaluate"),
        gpu=ASK.gpus("evaluate"),
        device=ASK.device("evaluate"),
    params:
        config=CONFIG,
        about=ASK.about("evaluate"),
    shell:
        "prt run evaluate {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"
