"""What tests of pages share: a critique, and a reader that checks whether tags close and lists what a page loads."""

from html.parser import HTMLParser

CRITIQUE = (
    "Light and shadow: soft. Mood and narrative: calm. Composition: loose. Color: warm. Exposure: sound. "
    "A fine picture."
)


class Outline(HTMLParser):
    """Checks that tags close in order, and collects headings, text and what the page would load."""

    VOID = ("meta", "img", "br")

    def __init__(self, html):
        super().__init__()
        self.open, self.headings, self.loads, self.text = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe", "object")
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
