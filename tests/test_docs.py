"""The pages: links lead somewhere, the index has all of them, snippets and pictures are whole."""

import ast
import re
from xml.etree import ElementTree

import pytest
from documented import anchors_of, links_of, markdown, target_of
from tiny import ROOT
from tutorial import code_blocks

PAGES = markdown()
DRAWN = sorted((ROOT / "docs" / "images").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(name: str):
    page = PAGES[name]
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            assert link.startswith(("https://", "http://", "mailto:")), link
            continue
        target, anchor = target_of(page, link)
        assert target.is_relative_to(ROOT) and target.exists(), f"{name} links to {link}"
        assert not anchor or anchor in anchors_of(target), f"{name} links to {link}"


def test_the_index_lists_every_page_once():
    index = PAGES["docs/README.md"]
    listed = [target_of(index, link)[0] for link in links_of(index) if not link.startswith("http")]
    pages = {path for name, path in PAGES.items() if name.startswith("docs/") and path != index}
    assert pages <= set(listed)
    assert all(listed.count(page) == 1 for page in pages)


def test_every_page_is_found_from_the_readme():
    """By following links, in a few steps, as a reader does."""
    seen, new = set(), {ROOT / "README.md"}
    while new:
        seen |= new
        led = {target_of(page, link)[0] for page in new for link in links_of(page)}
        new = {page for page in led if page.suffix == ".md" and page.is_file()} - seen
    assert {path for name, path in PAGES.items() if name.startswith("docs/")} <= seen
    assert ROOT / "CONTRIBUTING.md" in seen


@pytest.mark.parametrize("name", PAGES)
def test_python_snippets_are_python(name: str):
    for language, code in code_blocks(PAGES[name]):
        if language == "python":
            row = code.startswith(" ")  # of a table, as docs/add-a-method.md shows them
            ast.parse(f"{{\n{code}}}" if row else code)


def test_the_snippets_of_the_library_run(vectors, experts):
    """Of README.md and docs/methods.md, with tensors for the names that they leave open."""
    start = dict(vectors.pretrained)
    tasks = {"cars_expert": experts["cars"], "mnist_expert": experts["mnist"]}
    names = {"pretrained": start, "expert": experts["cars"], "other": experts["mnist"], **tasks}
    for page in ("README.md", "docs/methods.md"):
        [code] = [code for language, code in code_blocks(PAGES[page]) if language == "python"]
        namespace = dict(names)
        exec(code, namespace)
        assert namespace["weights"].keys() == start.keys()


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_drawings_can_be_read_everywhere(path):
    """A ground of their own for dark pages, a title for screen readers, no small print."""
    root = ElementTree.parse(path).getroot()
    assert root.get("role") == "img" and root.find(f"{SVG}title").text
    width, height = root.get("viewBox").split()[2:]
    ground = root.find(f"{SVG}rect")
    assert (ground.get("width"), ground.get("height")) == (width, height)
    assert ground.get("fill") == "#ffffff"
    # 11 pixels where a page shows 1000 units on 830 pixels.
    sizes = [float(one.get("font-size")) for one in root.iter() if one.get("font-size")]
    assert min(sizes) >= 12
    assert min(float(t.get("font-size", 99)) for t in root.iter(f"{SVG}text")) >= 15
    shown = [page for page in PAGES.values() if f"{path.name})" in page.read_text(encoding="utf-8")]
    assert shown


@pytest.mark.parametrize("name", PAGES)
def test_images_say_what_they_show(name: str):
    for alt, _ in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", PAGES[name].read_text(encoding="utf-8")):
        assert len(alt.split()) >= 3
