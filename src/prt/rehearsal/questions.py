"""Questions of the eleven benchmarks, made up, in the columns, splits and configurations of their repositories."""

from collections.abc import Callable
from typing import Any

Rows = list[dict[str, Any]]
Configurations = dict[str, dict[str, Rows]]  # configuration → split → rows

EXAMPLES = 12  # of each benchmark; one of each part, where it has parts
LETTERS = "ABCDEFGHIJ"
NAMES = ("Tom", "Ann", "Bob", "Eve", "Sam", "Kim")
THINGS = ("pens", "cakes", "cats", "books", "stones", "birds")
# MMLU's subjects, as configurations of its repository are called; MMLU-Pro's, as its column says.
SUBJECTS = [
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "business_ethics",
    "clinical_knowledge",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_medicine",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "econometrics",
    "electrical_engineering",
    "elementary_mathematics",
    "formal_logic",
    "global_facts",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_european_history",
    "high_school_geography",
    "high_school_government_and_politics",
    "high_school_macroeconomics",
    "high_school_mathematics",
    "high_school_microeconomics",
    "high_school_physics",
    "high_school_psychology",
    "high_school_statistics",
    "high_school_us_history",
    "high_school_world_history",
    "human_aging",
    "human_sexuality",
    "international_law",
    "jurisprudence",
    "logical_fallacies",
    "machine_learning",
    "management",
    "marketing",
    "medical_genetics",
    "miscellaneous",
    "moral_disputes",
    "moral_scenarios",
    "nutrition",
    "philosophy",
    "prehistory",
    "professional_accounting",
    "professional_law",
    "professional_medicine",
    "professional_psychology",
    "public_relations",
    "security_studies",
    "sociology",
    "us_foreign_policy",
    "virology",
    "world_religions",
]
CATEGORIES = [
    "biology",
    "business",
    "chemistry",
    "computer_science",
    "economics",
    "engineering",
    "health",
    "history",
    "law",
    "math",
    "other",
    "philosophy",
    "physics",
    "psychology",
]
# Instructions of IFEval with their arguments; the prompts say less than they ask.
INSTRUCTIONS: list[list[tuple[str, dict[str, Any]]]] = [
    [("punctuation:no_comma", {})],
    [("length_constraints:number_words", {"relation": "at least", "num_words": 20})],
    [("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 3})],
    [("change_case:english_lowercase", {}), ("keywords:existence", {"keywords": ["rain", "sun"]})],
    [("change_case:english_capital", {})],
    [("keywords:forbidden_words", {"forbidden_words": ["stone"]}), ("punctuation:no_comma", {})],
    [("detectable_format:number_highlighted_sections", {"num_highlights": 2})],
    [("detectable_format:title", {}), ("detectable_format:json_format", {})],
    [("startend:quotation", {})],
    [("detectable_content:postscript", {"postscript_marker": "P.S."})],
    [("language:response_language", {"language": "de"})],
    [("keywords:letter_frequency", {"letter": "e", "let_relation": "at least", "let_frequency": 5})],
]


def _asked(i: int) -> str:
    return f"{NAMES[i % 6]} has {i + 2} {THINGS[i % 5]} and finds {i + 1} more. How many {THINGS[i % 5]} are there?"


def _choices(i: int, n: int) -> list[str]:
    """Answers, of which the one at i % n is right."""
    return [f"{2 * i + 3 + (c - i % n)} {THINGS[i % 5]}" for c in range(n)]


def _each(row: Callable[[int], dict[str, Any]], *splits: str) -> dict[str, Rows]:
    """Examples of all splits, numbered through."""
    return {split: [row(EXAMPLES * s + i) for i in range(EXAMPLES)] for s, split in enumerate(splits)}


def _gsm8k() -> Configurations:
    def row(i: int) -> dict[str, Any]:
        total = 2 * i + 3
        sum_of = f"{i + 2} + {i + 1} = <<{i + 2}+{i + 1}={total}>>{total}"
        return {"question": _asked(i), "answer": f"There are {sum_of}.\n#### {total}"}

    return {name: _each(row, "train", "test") for name in ("main", "socratic")}


def _ifeval() -> Configurations:
    keys = sorted({key for row in INSTRUCTIONS for _, kwargs in row for key in kwargs})
    rows = [
        {
            "key": 1000 + i,
            "prompt": f"Tell of {THINGS[i % 5]} and the rain. Mind how you write.",
            "instruction_id_list": [name for name, _ in row],
            "kwargs": [dict.fromkeys(keys) | kwargs for _, kwargs in row],
        }
        for i, row in enumerate(INSTRUCTIONS)
    ]
    return {"default": {"train": rows}}


def _humaneval() -> Configurations:
    def row(i: int) -> dict[str, Any]:
        return {
            "task_id": f"HumanEval/{i}",
            "prompt": f'def add_{i}(a: int) -> int:\n    """Add {i} to a.\n    >>> add_{i}(1)\n    {i + 1}\n    """\n',
            "canonical_solution": f"    return a + {i}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {i + 1}\n    assert candidate(-2) == {i - 2}\n",
            "entry_point": f"add_{i}",
        }

    return {"openai_humaneval": _each(row, "test")}


def _mbpp() -> Configurations:
    def row(i: int) -> dict[str, Any]:
        return {
            "task_id": i,
            "text": f"Write a function to multiply a number by {i}.",
            "code": f"def times_{i}(a):\r\n  return {i} * a",
            "test_list": [f"assert times_{i}({a}) == {i * a}" for a in (0, 1, 5)],
            "test_setup_code": "",
            "challenge_test_list": [],
        }

    return {"full": _each(row, "train", "test", "validation", "prompt")}


def _arc() -> Configurations:
    def row(i: int) -> dict[str, Any]:
        labels = list("1234" if i % 7 == 3 else "ABCDE" if i % 5 == 4 else "ABC" if i % 11 == 5 else "ABCD")
        n = len(labels)
        choices = {"text": _choices(i, n), "label": labels}
        return {"id": f"Q{i}", "question": _asked(i), "choices": choices, "answerKey": labels[i % n]}

    return {name: _each(row, "train", "test", "validation") for name in ("ARC-Challenge", "ARC-Easy")}


def _gpqa() -> Configurations:
    def row(i: int) -> dict[str, Any]:
        right, *wrong = (f"{2 * i + 3 + c} {THINGS[i % 5]}" for c in range(4))
        others = {f"Incorrect Answer {number}": answer for number, answer in enumerate(wrong, 1)}
        return {"Record ID": f"rec{i}", "Question": _asked(i), "Correct Answer": right} | others

    return {name: _each(row, "train") for name in ("gpqa_diamond", "gpqa_extended", "gpqa_main")}


def _hellaswag() -> Configurations:
    def row(i: int) -> dict[str, Any]:
        first, second = f"{NAMES[i % 6]} opens the door.", "then the rain [substeps] begins"
        return {
            "ind": i,
            "activity_label": "Going out",
            "ctx_a": first,
            "ctx_b": second,
            "ctx": f"{first} {second}",
            "endings": [f"and {NAMES[i % 6]} counts {choice}." for choice in _choices(i, 4)],
            "source_id": f"activitynet~{i}",
            "split": "val",
            "split_type": "indomain",
            "label": str(i % 4),
        }

    return {"default": _each(row, "train", "test", "validation")}


def _mmlu() -> Configurations:
    def row(i: int, subject: str) -> dict[str, Any]:
        return {"question": _asked(i), "subject": subject, "choices": _choices(i, 4), "answer": i % 4}

    return {
        subject: {split: [row(i + s, subject)] for s, split in enumerate(("test", "validation", "dev"))}
        for i, subject in enumerate(SUBJECTS)
    }


def _mmlu_pro() -> Configurations:
    def row(i: int, category: str) -> dict[str, Any]:
        n = 10 if i % 3 else 4
        return {
            "question_id": i,
            "question": _asked(i),
            "options": _choices(i, n),
            "answer": LETTERS[i % n],
            "answer_index": i % n,
            "cot_content": f"A: Let's think step by step. The answer is ({LETTERS[i % n]}).",
            "category": category.replace("_", " "),
            "src": "made up",
        }

    numbered = list(enumerate(CATEGORIES))
    return {"default": {split: [row(i, of) for i, of in numbered] for split in ("test", "validation")}}


def _truthfulqa() -> Configurations:
    def row(i: int) -> dict[str, Any]:
        n = 3 + i % 4
        one = {"choices": _choices(0, n), "labels": [1] + [0] * (n - 1)}
        several = {"choices": _choices(0, n + 1), "labels": [1, 1] + [0] * (n - 1)}
        return {"question": _asked(0), "mc1_targets": one, "mc2_targets": several}

    return {"multiple_choice": _each(row, "validation")}


QUESTIONS: dict[str, Callable[[], Configurations]] = {
    "openai/gsm8k": _gsm8k,
    "google/IFEval": _ifeval,
    "openai/openai_humaneval": _humaneval,
    "google-research-datasets/mbpp": _mbpp,
    "allenai/ai2_arc": _arc,
    "Idavidrein/gpqa": _gpqa,
    "Rowan/hellaswag": _hellaswag,
    "cais/mmlu": _mmlu,
    "TIGER-Lab/MMLU-Pro": _mmlu_pro,
    "truthfulqa/truthful_qa": _truthfulqa,
}
