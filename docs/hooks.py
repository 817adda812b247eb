"""For mkdocs: what lies outside of `docs` is named, not linked, as the site does not hold it."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    return re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", r"\1 (`\2`)", markdown)
