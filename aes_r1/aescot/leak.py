"""The leak filter: does a critique give away the score, or that it was known?

A pure function of critique and hidden score (method, stage 0). It prefers catching a leak to sparing an odd sentence: a
critique that is lost costs one call, one that leaks teaches the model to look for a number that will not be there.
"""

from __future__ import annotations

import re
import unicodedata

from aes_r1.prompts import LEVELS

NEAR = 0.06  # a bare number this close to the score gives it away

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_TEENS = ("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate((*_UNITS, *_TEENS))} | {
    word: 10 * value for value, word in enumerate(_TENS, 2)
}
_UNIT = "|".join(_UNITS)
_ANY = "|".join((*_UNITS, *_TEENS, *_TENS))
_LEVEL = "|".join(LEVELS)
# What counts things in the picture or on the camera, so that a number before it is no score.
_COUNTED = (
    r"mm\b|cm\b|m\b|km\b|s\b|sec|seconds?\b|minutes?|hours?|o'?clock|years?|degrees?|stops?\b|ev\b|iso\b|k\b|kelvin|meters?|metres?|"
    r"feet|inch|times\b|am\b|pm\b|p\.m|a\.m|megapixels?|px\b|pixels?"
)
_FRAME = (
    r"of (?:the|its|this|their|each|every|her|his|all)? ?(?:\w+ )?(?:frame|image|picture|photo(?:graph)?|scene|canvas|sky|area|"
    r"composition|face|figure|water|ground|foreground|background|pixels?|surface|height|width|light|shadows?|wall|view|space|room)\b"
)
_JUDGED = r"(?:score|rating|mark|value|number|level|label|evaluation|verdict|assessment|target|information|opinion|answer)"


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


# Words that name a score or the act of scoring. Colour grades, musical scores and tonal scales are none.
_SCORING = (
    _rule(r"(?<!musical )(?<!music )(?<!film )\bscor(?:e|es|ed|ing)\b(?! on the | sheet| lines| marks| of music| in (?:her|his|their))"),
    _rule(r"\b(?:over|under)?ratings?\b|\braters?\b|\b(?:over|under|un)?rated\b|\b(?:is|was|be|been|were|it|this|i|i'd|would|people|most|as|highly|poorly|well|how)"
          r" (?:\w+ )?(?:rated?|rank(?:s|ed)?|scored)\b"),
    _rule(r"\brank(?:s|ed|ing)? (?:\w+ )?(?:near|above|below|among|in|at|as|high|low|it)\b|\brankings?\b"),
    _rule(r"\bmos\b|\bmean opinions?\b|\bground[ -]truth\b|\bannotat(?:or|ion|ed)s?\b|\bpercentiles?\b|\bquartiles?\b|\bdeciles?\b"),
    _rule(r"\bvot(?:es?|ers?|ed|ing)\b|\bjur(?:y|ies|ors?)(?:'s)?\b|\bthe judges\b|\bcrowd(?:'s)? (?:opinion|verdict|judge?ment)"),
    _rule(r"\b(?:full|top|half|high|low|poor|pass(?:ing)?|failing) marks?\b|\bmarks? out of\b|\b(?:gets?|earns?|deserves?) (?:a |the )?"
          r"(?:\w+ )?(?:marks?|grades?|points?|stars?)\b"),
    _rule(r"\bgraded (?:as|at|an?)\b|\bletter grade\b|\bgrade of\b|\bgrade:? [a-f]\b|\b[a-d](?:[+]| ?minus| ?plus)(?!\w)|\b[a-d]-(?:grade|level)"),
    _rule(r"\b(?:on|up|down|along|of) (?:a|the|any|this|that|our|my) (?!(?:tonal|gray|grey|color|colour|musical)\b)(?:[\w-]+ ){0,2}scale\b"),
    _rule(r"\bscale (?:of|from|between) (?:\d|zero|one|ten|a hundred)|\b(?:point|digit)[ -]scale\b|\bquality scale\b"),
    _rule(r"\bbetween (?:zero|0) and (?:one|1|ten|10|a hundred|100)\b|\b(?:zero|0) to (?:one|1|ten|10|a hundred|100)\b"),
)
# Words that show that something was known beforehand, or that opinions were counted.
_KNOWN = (
    _rule(r"\b(?:told|gave|asked|informed|handed|supplied|instructed|sent) me\b|\bthe user\b|\bmy (?:instructions?|information|prompt|task|brief)\b"),
    _rule(r"\b(?:\w+) (?:that |which )?i (?:received|have received|(?:was|have been|had been) (?:\w+ )?(?:given|handed|shown|provided|told|sent))\b"),
    _rule(r"\b(?:prior|previous|earlier|existing|received|expected|required|requested|prescribed|desired) (?:assessment|verdict|evaluation|"
          r"judge?ment|label|level|number|answer|appraisal|estimate|conclusion|opinion)\b|\b(?:confidential|secret) (?:figure|number|note|data)\b"),
    _rule(r"\bas (?:stated|specified|agreed|prescribed|required|expected of me)\b"),
    _rule(r"\b(?:the|a|its|that|this|such an?) (?:exact |precise |final |very |rather )?(?:low|high|mid|middling|given|known|modest|poor|excellent) "
          r"(?:number|mark|figure it|grade(?! of light))s?\b|\b(?:final|overall|aesthetic|quality) (?:mark|number|figure|grade|value)s?\b"),
    _rule(r"\b(?:dataset|data ?set|metadata|benchmark|training data|test set|answer key|answer is|answer:|numerical(?:ly)?|numeric|"
          r"decimals?|digits|quantif\w+|threshold for|cut-?off|unit interval)\b|</?(?:think|answer)>"),
    _rule(r"\b(?:consensus|(?:popular|public|general|collective|majority|average|aggregate) (?:opinion|verdict|judge?ment|taste|vote)|"
          r"audience(?:'s)? (?:verdict|opinion|note|judge?ment)|(?:the crowd|viewers|people|observers|critics|the public|the audience) "
          r"(?:\w+ )?(?:liked?|disliked?|gave|give|agreed?|approved?|preferred|thought|found it|judged|settled?|would (?:give|say|settle)))\b"),
    _rule(r"\b(?:in advance|beforehand|pre-?determined|pre-?set|pre-?assigned|pre-?decided|foregone)\b"),
    _rule(r"\bkeep(?:ing)? (?:\w+ ){1,4}(?:to myself|secret|private|confidential|hidden from|quiet)\b"),
    _rule(r"\bmy (?:judge?ment|verdict|assessment|critique|review|opinion|praise|restraint) (?:was|must|has|had|follows|is (?:set|fixed|bound))\b"),
    _rule(r"\b(?:it|picture|image|photo|photograph|frame|work|shot) (?:\w+ )?(?:received|obtained|got|earned|was (?:awarded|given|granted)|"
          r"has been (?:awarded|given|granted)|came with|comes with|merits|deserves) (?:an?|its|the|only|just|about)? ?"
          r"(?:\d|half\b|zero|one\b|two\b|three\b|four\b|five\b|six\b|seven\b|eight\b|nine\b|ten\b)"),
    _rule(r"\b(?:that|which) (?:came|comes|arrived|was supplied|was sent) with (?:the|this) (?:picture|image|photo(?:graph)?|task|request)\b"),
    _rule(rf"\b(?:given|assigned|provided|supplied|stated|known|hidden|secret|private|confidential|target|reference|official|actual|"
          rf"true|numeric(?:al)?|underlying|predetermined|intended|undisclosed|disclosed) (?:\w+ )?{_JUDGED}s?\b"),
    _rule(rf"\b(?:given|knowing|considering|despite|reflecting|matching|matches|justif(?:y|ies)|in line with|consistent with|"
          rf"according to|based on|confirms?) (?:the|this|that|its|such an?|an?|what) (?:\w+ )?{_JUDGED}s?\b(?! of (?:the )?light)"),
    _rule(r"\b(?:i|we) (?:was|were|am|have been|had been|'ve been|'m) (?:\w+ )?(?:told|given|informed|instructed|asked|handed|provided|supplied|"
          r"shown|aware|required|supposed|not allowed|not permitted)\b|\bas (?:i was )?(?:instructed|requested|asked|told|informed|provided)\b"),
    _rule(r"\b(?:reveal|disclose|divulge|mention|name|naming|state|stating|spell out|give away)\w* (?:\w+ ){0,2}"
          r"(?:number|value|figure|digits?|score|rating|level)s?\b"),
    _rule(r"\b(?:i|we) (?:may|can|must|should|could|will|shall)(?: ?not|n't) (?:reveal|disclose|divulge|mention|say|name|state|share|tell)\b"),
    _rule(r"\b(?:private|privileged|confidential|inside|prior|secret) (?:information|knowledge|info)\b|\bthe (?:prompt|instructions?)\b"),
    _rule(r"\b(?:i|we) (?:already )?kn[eo]w (?:how|what|its|the|beforehand|in advance|already)\b|\b(?:known|told|knowing\b.{0,30}) "
          r"(?:beforehand|in advance)\b"),
    _rule(r"\bthe (?:exact |precise |final |same |very )?(?:number|value) (?:i|is|was|says|explains|behind|itself|here|above|below|given)\b"),
)
# The hidden level said as a label; "good light" and "fair hair" are no labels.
_LABELS = (
    _rule(rf"\b(?:label|level|category|class|tier|bracket|bucket|rated|classed|classified|labell?ed|filed|designated)\W{{1,3}}(?:is |as |under )?"
          rf"[\"'“]?(?:{_LEVEL})\b"),
    _rule(rf"\b(?:falls?|comes?|goes|filed|belongs?|placed) (?:under|in|into|with|among|to) (?:the )?[\"'“]?(?:{_LEVEL})\b(?! (?:light|weather|taste))"),
    _rule(rf"\b(?:{_LEVEL}) (?:designation|classification|status|score|verdict|ones|category)\b"
          rf"|\b(?:verdict|assessment|judge?ment|label|level|rating) of [\"'“]?(?:{_LEVEL})\b|\b(?:{_LEVEL}) (?:is|would be) the (?:word|term|label|verdict)\b"),
    _rule(rf"(?::|\b(?:judged|deemed|considered|called|termed|borderline|officially)) ?(?:as )?(?:an? )?[\"'“]?(?:{_LEVEL})\b(?=[\"'”.,;!]|\s*$)"),
    _rule(rf"\b(?:level|category|class|tier|bracket|range|label|group|bucket|quality|verdict|overall|judge?ment|rated|marked|classed|"
          rf"classified|categori[sz]ed|ranked|label(?:l)?ed|filed|conclusion|final|assessment)\b\W{{0,4}}(?:is |as |of |would be |under |"
          rf"in |with )?(?:the |a )?[\"'“‘(]?(?:{_LEVEL})\b(?=[\"'”’).,;!:]|\s*$)"),
    _rule(rf"[\"'“‘(]?\b(?:{_LEVEL})\b[\"'”’)]?[ -](?:level|category|class|tier|bracket|band|range|label|group|bucket|quality level|rating|"
          rf"end of|territory|zone|box|pile|bin|grade|set)\b"),
    _rule(rf"[\"“‘'](?:{_LEVEL})[.,]?[\"”’']"),
    _rule(rf"(?:^|[.!?] )(?:overall,? )?(?:an? )?(?:{_LEVEL})(?:[.!]|$)"),
    _rule(r"\b(?:falls?|belongs?|sits?|lands?|placed?|filed?|put|counts?) (?:\w+ ){0,3}(?:category|tier|bracket|bucket|class|level)\b"),
)
_SHOUTED = re.compile(rf"\b(?:{_LEVEL.upper()})\b")
# Numbers that say a score whatever their size.
_OUT_OF = (
    _rule(rf"\ban? \w+ (?:{'|'.join(_UNITS[2:])})(?=\s*(?:[.,;!?)]|$))|\band a half out of\b|\b(?:a|one) hundred per ?cent\b"),
    _rule(r"\b(?:my|the|its|any) (?:number|figure) (?:would|should|might|could|must)\b|\bgrade (?:is|was) (?:known|given|set)\b"),
    _rule(rf"\bbetween (?:an? )?(?:\d|{_UNIT}) and (?:an? )?(?:\d+|{_UNIT})(?=\s*(?:[.,;!?)]|$))"),
    _rule("[★☆⭐🌟👍👎]"),
    _rule(rf"\b(?:\d|{_UNIT})[ -]tenths?\b(?! {_FRAME})|\b(?:{_ANY})[ -](?:ish|something|plus)\b|\b(?:{'|'.join(_UNITS[1:])})ish\b"),
    _rule(rf"\b(?:around|about|close to|nearly|roughly|almost|just|under|over|above|below|near|approaching|towards|an?) (?:an? )?(?:{_UNIT})"
          r"(?:[ -]and[ -]a[ -](?:half|quarter))?(?=\s*(?:[.,;!?)]|$| (?:at|or so|overall|from|for me|in my|and a half|on) ))"),
    _rule(r"\b(?:of|to|near|at|below|under|from) (?:the|its|a|any) (?:\w+ )?(?:maximum|minimum|ceiling of|perfection|upper bound|lower bound)\b"),
    _rule(r"\b(?:top|bottom|upper|lower|middle) (?:third|quarter|half|fifth|tenth|end) of (?:the|all|any) (?:scale|range|field|spectrum|"
          r"distribution|class|pack|set|ranking|photo(?:graph)?s|pictures|images)\b"),
    _rule(r"\b(?:quarter|third|half|tenth|fifth)s? of (?:a |the |full )?(?:masterpiece|perfection|mark|marks|maximum)\b"),
    _rule(rf"\b(?:\d+(?:[.,]\d+)?|{_ANY})(?:[ -]|\b)(?:stars? |points? |marks? )?(?:out[ -]of[ -]|of )(?:a (?:possible |full |total )?)?"
          r"(?:five|ten|twenty|hundred|one hundred|5|10|20|100)\b(?= ?(?:[.,;!?:)]|$)| (?:for|from|is|at|and|as|seems?|feels?|because|overall|or|no)\b)"),
    _rule(rf"\b(?:\d+(?:[.,]\d+)?|{_UNIT})[ -]out[ -]of[ -](?:a possible |a )?(?:ten|hundred|10|100)\b"),
    _rule(rf"(?<!f)(?<!f )(?<!\d)\d+(?:[.,]\d+)? ?/ ?(?:5|10|20|100)\b(?!\d| ?(?:{_COUNTED}|of the))"),
    _rule(rf"\b(?:\d+(?:[.,]\d+)?|{_UNIT}|half)(?:[ -]and[ -]a[ -]half)?[ -]star(?:s|red)?\b(?! (?:hang|shine|scatter|above|over|in the|on the|"
          r"glow|rise|stand|twinkle|of the))"),
    _rule(rf"\b(?:\d+(?:[.,]\d+)?|{_ANY}|odd|possible|total|full)[ -]points?\b(?! (?:of|light|of light|perspective))"
          r"|\bpoints? (?:of|out of) (?:ten|five|a hundred|100|10)\b"),
    _rule(r"\btop (?:\d+|five|ten|twenty)\b|\b\d+(?:st|nd|rd|th) (?:place|rank)\b"),
    _rule(r"\b(?:low|mid|high|upper|lower|early|late|the)[ -](?:teens|twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties)\b"
          r"(?! (?:style|look|car|fashion|film))"),
    _rule(rf"\bpoint (?:zero |oh )?(?:{_UNIT})\b(?!s)"),
    _rule(rf"\b(?:an?|solid|strong|weak|high|low|easy|generous|mere|bare|just|barely|only|maybe|perhaps|say|call it) (?:{_UNIT})"
          r"(?:[ -]and[ -]a[ -](?:half|quarter))?(?=\s*(?:[.,;!?)]|$| at (?:best|most)| or so| overall| from me| for me| in my))"),
    _rule(r"\b(?:half|a third|two[ -]thirds|a quarter|three[ -]quarters|a fifth|(?:two|three|four)[ -]fifths) (?:of )?(?:the |all |full )?"
          r"(?:possible |available |total )?(?:points?|marks?|credit|score|way up|way to)\b"),
)
_PERCENT = _rule(rf"\b((?:\d+(?:[.,]\d+)?|(?:{_ANY})(?:[ -](?:{_ANY}))?))[ -]?(?:%|per ?cent\b)")
_DECIMAL = _rule(rf"(?<![\w/:.])(\d{{0,3}}[.,]\d{{1,3}})(?!\d|[.,]\d)(?![ -]?(?:{_COUNTED}|:\d))")
_INTEGER = _rule(rf"(?<![\w/:.,-])(\d{{1,3}})(?![\d/:]|[.,]\d|(?:st|nd|rd|th|s)\b)(?![ -]?(?:{_COUNTED}|%|per ?cent))")
_SPELLED = _rule(rf"\b((?:{'|'.join(_TENS)})[ -](?:{'|'.join(_UNITS[1:10])}))\b(?![ -]?(?:{_COUNTED}))")
_ENDING = r"\s*(?:[.,;!?)]|$)"


def find_leak(critique: str, mos: float) -> str | None:
    """The words of `critique` that give away the score `mos` (0..1) or that it was known, else None."""
    text = _plain(critique)
    for rule in (*_SCORING, *_KNOWN, *_LABELS, _SHOUTED, *_OUT_OF):
        match = rule.search(text)
        if match:
            return match[0].strip()
    return _number_near(text, mos)


def _plain(critique: str) -> str:
    """One line, compatibility forms folded (full-width digits), invisible characters gone, quotes and dashes plain."""
    folded = unicodedata.normalize("NFKC", critique)
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    plain = visible.translate(str.maketrans({"’": "'", "‐": "-", "‑": "-", "–": "-", "—": " - ", "*": "", "_": " "}))
    return " ".join(plain.split())


def _number_near(text: str, mos: float) -> str | None:
    for match in _PERCENT.finditer(text):
        of_the_frame = re.match(rf"\s*{_FRAME}", text[match.end() :], re.IGNORECASE)
        if not of_the_frame:
            return match[0]
    for match in _DECIMAL.finditer(text):
        value = float(match[1].replace(",", "."))
        if value <= 1 or abs(value / 10 - mos) <= NEAR or abs(value / 100 - mos) <= NEAR:
            return match[0]
    for match in _SPELLED.finditer(text):
        tens, units = re.split(r"[ -]", match[1].lower())
        if abs((_VALUES[tens] + _VALUES[units]) / 100 - mos) <= NEAR:
            return match[0]
    for match in _INTEGER.finditer(text):
        value = int(match[1])
        alone = re.match(_ENDING, text[match.end() :]) is not None
        if abs(value / 100 - mos) <= NEAR or (alone and value <= 10 and abs(value / 10 - mos) <= NEAR):
            return match[0]
    return None
