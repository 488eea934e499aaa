"""The project's own promises: versions that agree, a command line that answers at once, no pickle."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from prt.config import check

ROOT = Path(__file__).parents[1]


def test_environment_and_pyproject_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == project["dependencies"]
    assert all("==" in line for line in pip)
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    for line in [*pip, *project["optional-dependencies"]["test"]]:
        name, _, version = line.partition("==")
        assert pinned[name.partition("[")[0].lower().replace("_", "-")] == version


def test_help_answers_without_heavy_imports() -> None:
    code = "import sys; sys.argv = ['prt', '--help']\nimport prt.cli\ntry: prt.cli.main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'open_clip', 'pandas', 'transformers'}\n"
    code += "print('loaded:', sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout
    assert "predict" in done.stdout


def test_every_key_is_documented() -> None:
    """config/README.md names every key of the schema."""
    schema = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())
    text = (ROOT / "config" / "README.md").read_text()

    def keys(node: object) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(keys, node))
        if not isinstance(node, dict):
            return set()
        found = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
        return found.union(*map(keys, node.values()))

    missing = sorted(key for key in keys(schema) if f"`{key}`" not in text)
    assert not missing


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "config" / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_s_own_configurations_are_accepted(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    schema = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())
    (tmp_path / "tickets.yaml").touch()
    for block in blocks:
        check(yaml.safe_load(block.replace("/data/tickets.yaml", str(tmp_path / "tickets.yaml"))), schema)


def test_no_pickle() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "torch.save(" not in text
        assert "torch.load(" not in text
