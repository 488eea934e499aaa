# Needs: the data sets and backbones of the configuration.
# Makes: results/EXPERIMENT/vision/{backbones,data,zero_shot,tuned,carried}/….
# A job makes all whose path begins with its name: one run, or, with `jobs: few`, all runs of a backbone on a data set.


# Miniature networks: pretrained on glyphs, by architecture and corpus.
rule pretrain:
    input:
        ASK.needs("pretrain"),
    output:
        f"{VISION}/backbones/{{job}}/open_clip_config.json",
        f"{VISION}/backbones/{{job}}/open_clip_model.safetensors",
    log:
        f"{LOGS}/pretrain/{{job}}.log",
    benchmark:
        f"{COSTS}/pretrain/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("pretrain"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=ASK.megabytes(2000),
        runtime=ASK.time(30),
    params:
        config=CONFIG,
        about=ASK.about("pretrain"),
    shell:
        "prt run pretrain {wildcards.job} --config {params.config} 2> {log}"


# A data set: three splits and a manifest. Table 5's has noise on the images of another.
rule prepare:
    input:
        ASK.needs("prepare"),
    output:
        expand(
            f"{VISION}/data/{{job}}/{{file}}",
            file=["manifest.json", "train.arrow", "validation.arrow", "test.arrow"],
            allow_missing=True,
        ),
    log:
        f"{LOGS}/prepare/{{job}}.log",
    benchmark:
        f"{COSTS}/prepare/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("prepare"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=ASK.megabytes(4000),
        runtime=ASK.time(120),
    params:
        config=CONFIG,
        about=ASK.about("prepare"),
        state=ASK.state,
    shell:
        "prt run prepare {wildcards.job} --config {params.config} 2> {log}"


# The zero-shot head of a backbone for a data set, and the pretrained network's scores with it.
rule zero_shot:
    input:
        ASK.needs("zero_shot"),
    output:
        directory(f"{VISION}/zero_shot/{{job}}"),
    log:
        f"{LOGS}/zero_shot/{{job}}.log",
    benchmark:
        f"{COSTS}/zero_shot/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("zero_shot"),
    conda:
        "../../environment.yml"
    threads: ASK.cores("zero_shot")
    resources:
        mem_mb=ASK.megabytes(16000),
        runtime=ASK.time(60),
        gpu=ASK.gpus("zero_shot"),
        device=ASK.device("zero_shot"),
    params:
        config=CONFIG,
        about=ASK.about("zero_shot"),
    shell:
        "prt run zero_shot {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"


# Fine-tuning (run ft), reward tuning (prt_ALPHA), and further tuning on noise (adapted), with the scores of the result.
rule tune:
    input:
        ASK.needs("tune"),
    output:
        directory(f"{VISION}/tuned/{{job}}"),
    log:
        f"{LOGS}/tune/{{job}}.log",
    benchmark:
        f"{COSTS}/tune/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("tune"),
    conda:
        "../../environment.yml"
    threads: ASK.cores("tune")
    resources:
        mem_mb=ASK.megabytes(32000),
        runtime=ASK.time(240),
        gpu=ASK.gpus("tune"),
        device=ASK.device("tune"),
    params:
        config=CONFIG,
        about=ASK.about("tune"),
    shell:
        "prt run tune {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"


# Rewards on images that they were not tuned on: Table 5's on noisy ones, those of `together` on the other data set's.
rule score_rewards:
    input:
        ASK.needs("score_rewards"),
    output:
        directory(f"{VISION}/carried/{{job}}"),
    log:
        f"{LOGS}/score_rewards/{{job}}.log",
    benchmark:
        f"{COSTS}/score_rewards/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("score_rewards"),
    conda:
        "../../environment.yml"
    threads: ASK.cores("score_rewards")
    resources:
        mem_mb=ASK.megabytes(16000),
        runtime=ASK.time(60),
        gpu=ASK.gpus("score_rewards"),
        device=ASK.device("score_rewards"),
    params:
        config=CONFIG,
        about=ASK.about("score_rewards"),
    shell:
        "prt run score_rewards {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"


# Weight differences: a target with what fine-tuning changed in a source of its own architecture.
rule merge:
    input:
        ASK.needs("merge"),
    output:
        directory(f"{VISION}/merged/{{job}}"),
    log:
        f"{LOGS}/merge/{{job}}.log",
    benchmark:
        f"{COSTS}/merge/{{job}}.tsv"
    wildcard_constraints:
        job=ASK.names("merge"),
    conda:
        "../../environment.yml"
    threads: ASK.cores("merge")
    resources:
        mem_mb=ASK.megabytes(16000),
        runtime=ASK.time(60),
        gpu=ASK.gpus("merge"),
        device=ASK.device("merge"),
    params:
        config=CONFIG,
        about=ASK.about("merge"),
    shell:
        "prt run merge {wildcards.job} --config {params.config} --device {resources.device} 2> {log}"
