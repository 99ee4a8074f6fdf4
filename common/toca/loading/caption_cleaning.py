"""How the captions of PixArt and Open-Sora were cleaned for training, and so must be for sampling. Needs beautifulsoup4 and ftfy."""

from __future__ import annotations

import html
import re
import urllib.parse
import warnings
from collections.abc import Iterable, Sequence

import ftfy
from bs4 import BeautifulSoup
from bs4.exceptions import ParserRejectedMarkup

FILE_TYPES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
DOMAIN = r"[a-z0-9.\-]+\.(?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
KEPT = r"(?P<kept>[a-z0-9.\-](?:(?!\bhttps?:|\bwww:)[a-z0-9.\-])*)"  # no domain: nor is what begins within it, so it is passed over
DASHES = "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"

Rules = Sequence[tuple[str, str]]  # pattern, replacement: in order, ignoring case

ADDRESSES: Rules = (
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-z0-9%])|{DOMAIN}|{KEPT})", r"\g<kept>"),
    (rf"\b(?:www:(?:/{{1,3}}|[a-z0-9%])|{DOMAIN}|{KEPT})", r"\g<kept>"),
)
SYMBOLS: Rules = (
    (r"@\w+\b", ""),
    ("[\u31c0-\u31ef\u31f0-\u31ff\u3200-\u32ff\u3300-\u33ff\u3400-\u4dbf\u4dc0-\u4dff\u4e00-\u9fff]+", ""),  # Chinese, Japanese
    (f"[{DASHES}]+", "-"),
    ("[`´«»“”¨]", '"'),
    ("[‘’]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # IPv4 addresses
    (r"\d:\d\d\s+$", ""),  # ends of article numbers
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"(?<!\S)\S+\.(?:{FILE_TYPES})", ""),  # from a word's start alone: a search from each letter would take the square of its length
    (r"[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),
    (r"(?<!\s)\s+\.\s+", " "),
)
CODES: Rules = (
    (r"\b[a-z]{1,3}\d{3,15}\b", ""),  # jc6640
    (r"\b[a-z]+\d+[a-z]+\b", ""),  # jc6640vc
    (r"\b\d+[a-z]+\d+\b", ""),  # 6640vc231
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{FILE_TYPES})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-z]+\d+[a-z]+\d+[a-z\d]*\b", " "),  # j2d1a2a
    (r"\b\d+(?:\.\d*)?[xх×]\d+(?:\.\d*)?\b", ""),  # 10x20, with the Latin and the Cyrillic letter
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
)
ENDS: Rules = (
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


def clean_caption(caption: str) -> str:
    """The caption as the text encoder is to read it: lower case, without addresses, markup, codes and advertising.

    Cleaned twice, because what one pass removes may bring together what another removes. May be empty: see `emptied`.
    """
    return _clean(_clean(re.sub("[\ud800-\udfff]", "\ufffd", caption)))  # halves of characters, which a command line may hold


def emptied(captions: Iterable[str]) -> list[int]:
    """Which captions, counted from 0, say something that cleaning leaves nothing of: their pictures would show anything."""
    return [index for index, caption in enumerate(captions) if caption.strip() and not clean_caption(caption)]


def _clean(caption: str) -> str:
    text = urllib.parse.unquote_plus(caption).strip().lower()
    text = _apply(ADDRESSES, text)
    text = _apply(SYMBOLS, _without_markup(text))
    if len(re.findall("[-_]", text)) > 3:  # words joined by them, such as a file's name
        text = re.sub("[-_]", " ", text)
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _apply(ENDS, _apply(CODES, text)).strip()


def _without_markup(text: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts that look like a file's name
        try:
            return BeautifulSoup(text, features="html.parser").text
        except ParserRejectedMarkup:  # "<![" opens a section of no known kind
            return BeautifulSoup(re.sub("<!+", " ", text), features="html.parser").text


def _apply(rules: Rules, text: str) -> str:
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text, flags=re.IGNORECASE)
    return text
