# Needs: the tidy tables of language.smk. Makes: the language figures and tables of the paper, each a target of its own.

# Figures 3, 4, 10, 11, 13 and 14: transfer across models.
for name in BARS:

    rule:
        name:
            name
        input:
            table=language_table(name, "summary"),
            published=workflow.source_path("../../config/published/figure3.csv"),
        output:
            drawn(
                name,
                category="Figures",
                labels={"item": name.replace("figure", "Figure ")},
                caption="../report/language_bars.rst",
            ),
        log:
            f"{LANGUAGE_LOGS}/figures/{name}.log",
        benchmark:
            f"{LANGUAGE_COSTS}/figures/{name}.tsv"
        group:
            "collected"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=growing(2000),
            runtime=growing(10),
        params:
            panels=as_json(BARS[name]["panels"]),
            names=as_json(paper_names()),
            out=subpath(output[0], strip_suffix=".png"),
        shell:
            "prt figure language-bars --table {input.table} --out {params.out} --panels {params.panels:q} "
            "--published {input.published} --names {params.names:q} 2> {log}"


# Figures 5, 8 and 9: the next token with and without the reward.
rule next_tokens:
    input:
        next_token_needs,
    output:
        f"{LANGUAGE_TOP}/next_tokens/{{figure}}.json",
    log:
        f"{LANGUAGE_LOGS}/next_tokens/{{figure}}.log",
    benchmark:
        f"{LANGUAGE_COSTS}/next_tokens/{{figure}}.tsv"
    wildcard_constraints:
        figure="|".join(NEXT_TOKENS),
    conda:
        "../../environment.yml"
    threads: lambda wc: cores_of(gpus_of_figure(wc))
    resources:
        mem_mb=growing(64000),
        runtime=growing(30),
        gpu=gpus_of_figure,
        device=lambda wc: "cuda" if gpus_of_figure(wc) else "cpu",
    params:
        item=lambda wc: NEXT_TOKENS[wc.figure],
        target=lambda wc: model_folder(NEXT_TOKENS[wc.figure]["target"]),
        reward=lambda wc: figure_reward(wc),
        base=lambda wc: model_folder(NEXT_TOKENS[wc.figure]["source"]),
        settings=lambda wc: as_json(
            benchmark_settings(NEXT_TOKENS[wc.figure]["benchmark"])
        ),
        precision=LANGUAGE["recipe"].get("precision", "bf16"),
    shell:
        "prt language next-tokens --target {params.target:q} --name {params.item[target]} --reward {params.reward} "
        "--base {params.base:q} --benchmark {params.item[benchmark]} --settings {params.settings:q} "
        "--example {params.item[example]} --precision {params.precision} --device {resources.device} "
        "--out {output} 2> {log}"


for name in NEXT_TOKENS:

    rule:
        name:
            name
        input:
            f"{LANGUAGE_TOP}/next_tokens/{name}.json",
        output:
            drawn(
                name,
                category="Figures",
                labels={"item": name.replace("figure", "Figure ")},
                caption="../report/next_tokens.rst",
            ),
        log:
            f"{LANGUAGE_LOGS}/figures/{name}.log",
        benchmark:
            f"{LANGUAGE_COSTS}/figures/{name}.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=growing(2000),
            runtime=growing(10),
        params:
            out=subpath(output[0], strip_suffix=".png"),
        shell:
            "prt next-tokens-figure {input} --out {params.out} 2> {log}"


# Figure 7: accuracy for each α.
if "figure7" in LANGUAGE:

    rule figure7:
        input:
            language_table("figure7", "summary"),
        output:
            drawn(
                "figure7",
                category="Figures",
                labels={"item": "Figure 7"},
                caption="../report/figure7.rst",
            ),
        log:
            f"{LANGUAGE_LOGS}/figures/figure7.log",
        benchmark:
            f"{LANGUAGE_COSTS}/figures/figure7.tsv"
        group:
            "collected"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=growing(2000),
            runtime=growing(10),
        params:
            select=transfers_of("figure7"),
            out=subpath(output[0], strip_suffix=".png"),
        shell:
            "prt figure language-entropy --table {input} --select {params.select:q} --out {params.out} 2> {log}"


# Tables 4 (seeds) and 6 (LoRA).
for name in spread_tables():

    rule:
        name:
            name
        input:
            summary=language_table(name, "summary"),
            comparison=language_table(name, "comparison"),
            published=workflow.source_path("../../config/published/paper.csv"),
        output:
            drawn(
                name,
                category="Tables",
                labels={"table": name.replace("table", "Table ")},
                caption=f"../report/{name}.rst",
            ),
        log:
            f"{LANGUAGE_LOGS}/figures/{name}.log",
        benchmark:
            f"{LANGUAGE_COSTS}/figures/{name}.tsv"
        group:
            "collected"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=growing(2000),
            runtime=growing(10),
        params:
            drawing={"table4": "seeds-table", "table6": "lora-table"}[name],
            select=transfers_of(name),
            names=as_json(paper_names()),
            out=subpath(output[0], strip_suffix=".png"),
        shell:
            "prt figure {params.drawing} --table {input.summary} --comparison {input.comparison} "
            "--select {params.select:q} --published {input.published} --names {params.names:q} --out {params.out} 2> {log}"


# Table 3: the speed of decoding; the reward is that of the first seed, so that drafts are accepted as often as they are.
if "table3" in LANGUAGE:

    rule measure_decoding:
        input:
            decoding_needs(),
        output:
            report(
                f"{LANGUAGE_TOP}/table3.csv",
                category="Tables",
                labels={"table": "decoding speed"},
                caption="../report/table3.rst",
            ),
        log:
            f"{LANGUAGE_LOGS}/table3.log",
        benchmark:
            f"{LANGUAGE_COSTS}/table3.tsv"
        conda:
            "../../environment.yml"
        threads: alone(gpus_of_decoding())
        resources:
            mem_mb=growing(64000),
            runtime=growing(120),
            gpu=gpus_of_decoding(),
            device="cuda" if gpus_of_decoding() else "cpu",
        params:
            pairs=[
                f"--pair {shlex.quote(as_json(decoding_pair(source, target)))}"
                for source, target in LANGUAGE["table3"]["pairs"]
            ],
            prompt=LANGUAGE["table3"]["prompt_tokens"],
            new=LANGUAGE["table3"]["new_tokens"],
            repeats=LANGUAGE["table3"]["repeats"],
            compile=(
                "--compile"
                if LANGUAGE["table3"].get("compile", True)
                else "--no-compile"
            ),
            precision=LANGUAGE["recipe"].get("precision", "bf16"),
        shell:
            "OMP_NUM_THREADS=1 prt language benchmark-decoding {params.pairs} --prompt-tokens {params.prompt} "
            "--new-tokens {params.new} --repeats {params.repeats} {params.compile} "
            "--precision {params.precision} --device {resources.device} --out {output} 2> {log}"

    rule table3:
        input:
            table=f"{LANGUAGE_TOP}/table3.csv",
            published=workflow.source_path("../../config/published/paper.csv"),
        output:
            drawn(
                "table3",
                category="Tables",
                labels={"table": "Table 3"},
                caption="../report/table3.rst",
            ),
        log:
            f"{LANGUAGE_LOGS}/figures/table3.log",
        benchmark:
            f"{LANGUAGE_COSTS}/figures/table3.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=growing(2000),
            runtime=growing(10),
        params:
            names=as_json(paper_names()),
            out=subpath(output[0], strip_suffix=".png"),
        shell:
            "prt figure decoding-table --table {input.table} --published {input.published} --names {params.names:q} "
            "--out {params.out} 2> {log}"
