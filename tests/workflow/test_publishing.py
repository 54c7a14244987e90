"""The address of the repository, the cells that install, the site with its versions, the weekly issue."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import notebook_tools as nb  # noqa: E402
import publishing  # noqa: E402

REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


def extension(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- one address -----------------------------------------------------------------------------------------------


def test_the_address_of_the_repository_stands_in_one_place():
    name = REPOSITORY.removeprefix("https://")
    owner = urlsplit(REPOSITORY).path.strip("/")
    listed = subprocess.run(
        ["git", "-C", ROOT, "grep", "-lF", "-e", name, "-e", owner], capture_output=True, text=True
    ).stdout.split()
    assert "_config.yml" in listed
    # The cells that install cannot read it from there; `make pin` writes them, and the next test holds them to it.
    assert {path for path in listed if not path.endswith(".ipynb")} == {"_config.yml"}
    for path in filter(lambda path: path.endswith(".ipynb"), listed):
        cells = nb.read(ROOT / path).cells
        assert [cell for cell in cells if owner in cell.source and not nb.installs(cell)] == []


@pytest.mark.parametrize("path", nb.all_notebooks(), ids=lambda path: path.stem)
def test_a_notebook_installs_what_its_outputs_were_made_with(path):
    notebook = nb.read(path)
    before = [cell.source for cell in notebook.cells]
    (cell,) = filter(nb.installs, notebook.cells)
    commit = notebook.metadata.get("gence", {}).get("commit") or "main"
    assert f"git clone -q {REPOSITORY} gence-book\n" in cell.source and f"git checkout -q {commit}  #" in cell.source
    nb.pin(notebook)
    assert [cell.source for cell in notebook.cells] == before, "run `make pin`"


def test_the_version_that_a_notebook_installs_makes_no_page_stale_and_no_execution_another():
    notebook = nb.read(nb.all_notebooks()[0])
    before = nb.code_hashes(notebook)
    executed = nbformat.reads(nbformat.writes(notebook), as_version=4)
    notebook.metadata["gence"]["commit"] = "0123456789ab"
    nb.pin(notebook)
    (cell,) = filter(nb.installs, notebook.cells)
    assert "0123456789ab" in cell.source and nb.code_hashes(notebook) == before
    nb.take_outputs(notebook, executed)
    other = next(cell for cell in nb.code_cells(notebook) if not nb.installs(cell))
    other.source += "\nchanged = 1"
    assert nb.code_hashes(notebook) != before
    with pytest.raises(SystemExit, match="other code cells"):
        nb.take_outputs(notebook, executed)


# --- what a page says of itself --------------------------------------------------------------------------------


def test_published_pages_launch_their_own_version(monkeypatch):
    monkeypatch.setenv(nb.REF, "v0.3.0")
    released = nb.published(nb.configuration())
    assert released["repository"]["branch"] == "v0.3.0"
    assert released["sphinx"]["config"]["release"] == "v0.3.0" and released["sphinx"]["config"]["book_is_published"]
    monkeypatch.setenv(nb.REF, "0123456789abcdef0123456789abcdef01234567")
    assert nb.published(nb.configuration())["sphinx"]["config"]["release"] == "commit 0123456789ab"
    monkeypatch.delenv(nb.REF)
    here = nb.published(nb.configuration())
    assert here["repository"]["branch"] == "main" and not here["sphinx"]["config"]["book_is_published"]


def test_the_report_of_a_fault_fills_in_the_form():
    page = extension("published")
    asked = parse_qs(urlsplit(page.report_address(REPOSITORY, "book/loss", "v0.3.0 & more")).query)
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / asked["template"][0]).read_text())
    fields = {field["id"] for field in form["body"]}
    assert set(asked) - {"template", "title"} <= fields
    assert asked["page"] == ["book/loss"] and asked["version"] == ["v0.3.0 & more"]
    assert {field["id"] for field in form["body"] if field.get("validations", {}).get("required")} >= {
        "page",
        "version",
    }


def test_the_foot_of_a_page_leads_to_places_that_exist():
    page = extension("published")
    deep = page.foot("notebooks/idea/why_another_loss", "v0.3.0", REPOSITORY, published=True)
    assert 'href="../../book/index.html#cite-this-book"' in deep and 'href="../../../versions.html"' in deep
    assert "versions.html" not in page.foot("book/loss", "v0.3.0", REPOSITORY, published=False)
    for name in re.findall(r"/blob/HEAD/([\w.-]+)", deep):
        assert (ROOT / name).is_file()
    assert "## Cite this book" in (ROOT / "book" / "index.md").read_text()


def test_what_is_cited_is_the_same_everywhere():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    archived = json.loads((ROOT / ".zenodo.json").read_text())
    assert archived["title"] == cited["title"] and archived["license"] == cited["license"]
    authors = [author["name"] for author in cited["authors"]]
    assert [creator["name"] for creator in archived["creators"]] == authors == [nb.configuration()["author"]]
    assert all(authors[0] in (ROOT / name).read_text() for name in ("LICENSE", "LICENSE-TEXT.md"))
    entry = extension("published").bibtex(cited, "v0.3.0", REPOSITORY)
    (paper,) = cited["references"]
    assert all(text in entry for text in (cited["title"], authors[0], "v0.3.0", REPOSITORY, paper["title"]))
    number = re.search(r"eprint  = \{([\d.]+)\}", entry)[1]
    assert archived["related_identifiers"][0]["identifier"] == f"arXiv:{number}"
    assert number in (ROOT / "book" / "references.bib").read_text()
    assert entry.count("{") == entry.count("}")


# --- a release -------------------------------------------------------------------------------------------------


def test_the_notes_of_a_release_come_from_the_changelog_and_versions_agree(tmp_path):
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.3.0: a name\n\n- One.\n\n## 0.2.0\n\n- Old.\n")
    (tmp_path / "CITATION.cff").write_text("version: 0.3.0\n")
    assert publishing.notes("v0.3.0", tmp_path) == "- One."
    with pytest.raises(SystemExit, match=r"CITATION.cff says version 0\.3\.0, the tag says 0\.2\.0"):
        publishing.notes("v0.2.0", tmp_path)
    with pytest.raises(SystemExit, match=r"no section for 0\.4\.0"):
        publishing.notes("v0.4.0", tmp_path)
    for wrong in ("", "0.3.0", "v0.3", "v0.3.0rc1"):
        with pytest.raises(SystemExit, match=r"write it like v0\.3\.0"):
            publishing.notes(wrong, tmp_path)


def book(folder: Path, says: str) -> Path:
    (folder / "_static").mkdir(parents=True)
    (folder / "index.html").write_text(says)
    (folder / "_static" / "book.css").write_text("p {}")
    return folder


def archived(tmp_path: Path, tag: str, files: Path) -> None:
    (tmp_path / "books").mkdir(exist_ok=True)
    with tarfile.open(tmp_path / "books" / f"{tag}.tar.gz", "w:gz") as archive:
        archive.add(files, arcname=".")


def test_the_site_has_every_version_and_stable_is_the_newest_by_number(tmp_path):
    dev = book(tmp_path / "html", "dev")
    for tag in ("v0.9.0", "v0.10.0", "v0.2.1"):
        archived(tmp_path, tag, book(tmp_path / tag, tag))
    made = publishing.site(tmp_path / "site", dev, tmp_path / "books")
    assert made == ["v0.10.0", "v0.9.0", "v0.2.1", "stable", "dev"]
    for name, says in {"dev": "dev", "stable": "v0.10.0", "v0.2.1": "v0.2.1"}.items():
        assert (tmp_path / "site" / name / "index.html").read_text() == says
        assert (tmp_path / "site" / name / "_static" / "book.css").is_file()
    for page in ("index.html", "versions.html"):
        for link in re.findall(r'href="([^"]+)"', (tmp_path / "site" / page).read_text()):
            assert (tmp_path / "site" / link / "index.html").is_file()


def test_without_a_release_stable_leads_to_dev_and_wrong_books_are_refused(tmp_path, monkeypatch):
    dev = book(tmp_path / "html", "dev")
    assert publishing.site(tmp_path / "site", dev) == ["stable", "dev"]
    assert "../dev/" in (tmp_path / "site" / "stable" / "index.html").read_text()
    archived(tmp_path, "v1", dev)
    with pytest.raises(SystemExit, match=r"v1\.tar\.gz is no book of a release"):
        publishing.site(tmp_path / "site", dev, tmp_path / "books")
    (tmp_path / "books" / "v1.tar.gz").unlink()
    archived(tmp_path, "v1.0.0", dev / "_static")
    with pytest.raises(SystemExit, match=r"no index\.html"):
        publishing.site(tmp_path / "site", dev, tmp_path / "books")
    monkeypatch.setattr(publishing, "LARGEST_SITE", 10)
    with pytest.raises(SystemExit, match="more than"):
        publishing.site(tmp_path / "site", dev)


# --- the weekly issue ------------------------------------------------------------------------------------------


class Issues:
    """Stands in for `gh`: keeps issues as GitHub would."""

    def __init__(self) -> None:
        self.open: dict[str, str] = {}
        self.said: list[str] = []

    def __call__(self, *words: str, given: str | None = None) -> str:
        match words:
            case ("issue", "list", *_):
                return "\n".join(self.open)
            case ("issue", "create", *_):
                self.open[str(len(self.open) + 1)] = given
            case ("issue", "edit", number, *_):
                self.open[number] = given
            case ("issue", "comment" | "close" as kind, number, _, text):
                self.said.append(text)
                if kind == "close":
                    del self.open[number]
        return ""


def results(**failed: str) -> dict[str, dict[str, str]]:
    return {job: {"result": failed.get(job, "success")} for job in publishing.CAUSES}


def test_the_weekly_runs_keep_one_issue_with_the_cause(tmp_path, monkeypatch):
    issues = Issues()
    monkeypatch.setattr(publishing, "_gh", issues)
    assert publishing.report(results(), tmp_path, "RUN1") == "all pass" and issues.open == {}

    (tmp_path / "newest").mkdir()
    (tmp_path / "newest" / "newest.log").write_text("fine\n" * 50 + "FAILED tests/x.py::test_y - assert 1 == 2\nbye\n")
    locked = re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (tmp_path / "newest" / "versions.txt").write_text(f"{locked[0][0]}==99.0\n{locked[1][0]}=={locked[1][1]}\n")
    publishing.report(results(newest="failure"), tmp_path, "RUN2")
    ((number, text),) = issues.open.items()
    assert "## newest: failure" in text and publishing.CAUSES["newest"] in text and "RUN2" in text
    assert "FAILED tests/x.py::test_y" in text and "fine" not in text and "locked" not in text
    assert f"{locked[0][0]}: {locked[0][1]} -> 99.0" in text.lower() and locked[1][0] not in text

    publishing.report(results(newest="failure", links="failure"), tmp_path, "RUN3")
    assert list(issues.open) == [number] and "## links: failure" in issues.open[number]
    assert "RUN2" not in issues.open[number] and "newest, links. RUN3" in issues.said[-1]

    publishing.report(results(), tmp_path, "RUN4")
    assert issues.open == {} and "RUN4" in issues.said[-1]


def test_every_weekly_job_has_a_cause_and_a_log_without_errors_shows_its_end(tmp_path):
    weekly = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text())["jobs"]
    assert set(publishing.CAUSES) == set(weekly) - {"report"}
    with pytest.raises(SystemExit, match="no cause is written for the jobs"):
        publishing.report({"unheard": {"result": "failure"}}, tmp_path, "RUN")
    log = tmp_path / "a.log"
    log.write_text("\n".join(f"line {n}" for n in range(100)))
    assert publishing.telling(log).splitlines() == [f"line {n}" for n in range(80, 100)]
