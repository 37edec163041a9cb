"""List the patterns of words that reveal a score, whatever its value.

They do not match the legitimate vocabulary of critics: colour grades, musical scores, tonal scales, points of light,
the rule of thirds, shares of the frame, camera settings, "given the harsh light", "good light".
"""

from __future__ import annotations

import re

from aes_r1.prompts import LEVELS

UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TEENS = (
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNIT = f"(?:{'|'.join(UNITS)})"
_FROM_TWO = f"(?:zero|{'|'.join(UNITS[2:])})"
NUMBER_WORD = f"(?:{'|'.join((*UNITS, *TEENS, *TENS, 'hundred'))})"
_NUMBER = rf"(?:\d+(?:[.,]\d+)?|{NUMBER_WORD})"
_LEVEL = f"(?:{'|'.join(LEVELS)})"
_END = r"(?=\s*(?:[.,;!?:)]|$))"
_AND_A_HALF = r"(?:[ -]and[ -]a[ -](?:half|quarter|bit))?"

# Units of things in the picture or on the camera: a number before one of them is no score.
COUNTED = (
    r"mm\b|cm\b|m\b|km\b|s\b|sec|seconds?\b|minutes?|hours?|o'?clock|years?|degrees?|stops?\b|ev\b|iso\b|k\b|kelvin|"
    r"meters?|metres?|feet|inch|times\b|am\b|pm\b|p\.m|a\.m|megapixels?|px\b|pixels?"
)
# The whole that a share belongs to: such a share is no score.
FRAME = (
    r"of (?:the|its|this|their|each|every|her|his|all)? ?(?:\w+ )?(?:frame|image|picture|photo(?:graph)?|scene|canvas|"
    r"sky|area|composition|face|figure|water|ground|foreground|background|pixels?|surface|height|width|light|shadows?|"
    r"wall|view|space|room)\b"
)
_JUDGED = (
    r"(?:scores?|ratings?|marks?|values?|numbers?|levels?|labels?|evaluations?|verdicts?|assessments?|targets?|"
    r"information|opinions?|answers?)\b(?! of\b)"
)
_IT = r"(?:it|picture|image|photo|photograph|frame|work|shot)"

_SCORING = (
    r"(?<!musical )(?<!music )(?<!film )\bscor(?:e|es|ed|ing)\b"
    r"(?! on the | sheet| lines| marks| of music| in (?:her|his|their))",
    r"\b(?:over|under)?ratings?\b|\braters?\b|\b(?:over|under|un)?rated\b",
    r"\b(?:it|i|i'd|would|people|most|as|highly|poorly|well|how) (?:\w+ )?(?:rate|ranked|ranks?)\b",
    r"\brank(?:s|ed|ing)? (?:\w+ )?(?:near|above|below|among|in|at|as|high|low|it|is)\b|\brankings?\b",
    r"\bmos\b|\bmean opinions?\b|\bground[ -]truth\b|\bannotat(?:or|ion|ed)s?\b|\b(?:percent|quart|dec)iles?\b",
    r"\bthe median\b(?! (?:strip|line))|\bin school terms\b|\bthe numbers (?:tell|say|show)\b",
    r"\bvot(?:es?|ers?|ed|ing)\b|\bjur(?:y|ies|ors?)\b|\bthe (?:judges|graders)\b(?!')|^graders\b|\. graders\b",
    r"\b(?:full|top|half|high|low|poor|pass(?:ing)?|failing) marks?\b|\bmarks? out of\b|\b(?:final|overall) (?:mark|"
    r"number)s?\b",
    r"\b(?:gets?|earns?|deserves?|receives?) (?:a |the )?(?:\w+ )?(?:marks?|grades?|points?|stars?)\b",
    r"\bgraded (?:as|at|an?)\b|\bletter grade\b|\bgrade of\b(?! (?:gr[ae]y|"
    r"colou?r|paper|sand|stone|wood)\b)|\bgrade:? [a-f]\b|\b[a-d](?:[+]|[ -]?minus|[ -]?plus)(?!\w)",
    r"\b[a-d]-(?:grade|level)\b|\bgrade (?:is|was) (?:known|given|set)\b|\bgrade (?:it|this|that picture) (?:got|gets|"
    r"has)\b",
    r"\b(?:the|a|its|that|this|such an?) (?:exact |precise |final |very |rather )?"
    r"(?:low|high|mid|middling|given|known|modest|poor|excellent) (?:number|mark)s?\b(?! of\b)",
    r"\b(?:up|down|along|on) (?:the|any|that|my|"
    r"our) (?:\w+ )?scale\b(?! of)(?<!tonal scale)(?<!gray scale)(?<!grey scale)",
    r"\b(?:middle|end|top|bottom|half|part|third|centre|center) of (?:the|any|that|my|our) scale\b",
    rf"\bon (?:a|any|the) (?:\w+ )?(?:scale\b|{_NUMBER}(?:[ -]{_NUMBER})?[ -](?:point )?scale\b)",
    r"\bscale (?:of|from|between) (?:\d|zero|one|ten|a hundred)|\b(?:point|digit)[ -]scale\b|\bquality scale\b",
    r"\b(?:between|from) (?:zero|0) (?:and|to) (?:one|1|ten|10|a hundred|100)\b|\b0 to (?:1|10|100)\b",
    r"\b(?:top|bottom|upper|lower|middle) (?:third|quarter|half|fifth|tenth|end) of (?:the|all|any) "
    r"(?:scale|range|field|spectrum|distribution|class|pack|set|ranking|photo(?:graph)?s|pictures|images)\b",
)

_KNOWN = (
    rf"\b(?:given|assigned|provided|supplied|stated|known|hidden|secret|private|confidential|target|reference|official|"
    rf"actual|true|numeric(?:al)?|underlying|predetermined|intended|undisclosed|disclosed) (?:\w+ )?{_JUDGED}",
    rf"\b(?:given|knowing|considering|despite|reflecting|matching|matches|justif(?:y|ies)|in line with|consistent with|"
    rf"according to|based on|confirms?) (?:the|this|that|its|such an?|an?|what) (?:\w+ )?{_JUDGED}",
    r"\b(?:prior|previous|earlier|existing|received|expected|required|requested|prescribed|desired) (?:assessment|"
    r"verdict|evaluation|judge?ment|label|level|number|answer|appraisal|estimate|conclusion|opinion)\b(?! of\b)",
    r"\b(?:i|we) (?:was|were|am|have been|had been|'ve been|'m) (?:\w+ )?(?:told|given|informed|instructed|asked|"
    r"handed|provided|supplied|shown|aware|required|supposed|allowed|permitted)\b",
    r"\bas (?:i was )?(?:instructed|requested|asked|told|informed|provided|stated|specified|agreed|prescribed|"
    r"required)\b",
    r"\b(?:told|gave|asked|informed|handed|supplied|instructed|sent) me\b|\bthe user\b",
    r"\bmy (?:instructions?|information|prompt|task|brief)\b|\bthe (?:prompt|instructions?)\b",
    r"\b\w+ (?:that |which )?i (?:received|have received|(?:was|have been|had been) (?:\w+ )?(?:given|handed|shown|"
    r"told|sent))\b",
    r"\b(?:reveal|disclose|divulge|mention|name|naming|stating|spell out|give away)\w* (?:\w+ ){0,2}"
    r"(?:number|value|figure|digits?|score|rating)s?\b",
    r"\b(?:i|we) (?:may|can|must|should|could|will|shall)(?: ?not|n't) (?:reveal|disclose|divulge|mention|say|name|"
    r"state|tell)\b",
    r"\b(?:private|privileged|confidential|inside|prior|secret) (?:information|knowledge|info|figure|number|note|"
    r"data)\b",
    r"\b(?:i|we) (?:already )?kn[eo]w (?:how|what|its|the|that (?:people|viewers|it)|beforehand|in advance|already)\b",
    r"\b(?:in advance|beforehand|pre-?determined|pre-?set|pre-?assigned|pre-?decided|foregone)\b",
    r"\bthe (?:exact |precise |final |same |very )?(?:number|value) (?:i|is|was|says|explains|behind|itself|here|"
    r"above|below)\b",
    r"\b(?:my|the|its|any) number (?:would|should|might|could|must)\b",
    rf"\b(?:the|its|a) {_JUDGED} (?:\w+ )?(?:assigned|given|attached|ascribed|attributed|awarded|known) (?:to|by|"
    r"for)\b",
    r"\bmy (?:private|own|secret) (?:notes?|file|data|sheet)\b",
    r"\bkeep(?:ing)? (?:\w+ ){1,4}(?:to myself|secret|private|confidential|hidden from|quiet)\b",
    r"\bmy (?:judge?ment|verdict|assessment|critique|review|opinion|praise|restraint) "
    r"(?:was|must|has|had|follows|is (?:set|fixed|bound))\b",
    r"\b(?:dataset|data set|metadata|benchmark|training data|test set|answer key|answer is|answer:|numerical(?:ly)?|"
    r"numeric|decimals?|quantif\w+|threshold for|cut-?off|unit interval)\b|</?(?:think|answer)>",
    r"\bconsensus\b|\b(?:popular|public|general|collective|majority|average|aggregate) (?:opinion|verdict|judge?ment|"
    r"taste)\b",
    r"\b(?:audience|crowd|viewer)(?:'?s'?)? (?:verdict|opinion|note|judge?ment)",
    r"\b(?:the crowd|viewers|people|observers|critics|the public|the audience) (?:\w+ )?(?:liked|disliked|approved|"
    rf"preferred|thought|judged|settled?|(?:gave|give|found) (?:it|this|the {_IT})|would (?:give|say|settle))\b",
    rf"\b{_IT} (?:\w+ )?(?:received|obtained|got|earned|was (?:awarded|given|granted)|has been (?:awarded|given|"
    rf"granted)|came with|comes with|merits|deserves) (?:an?|its|the|only|just|about)? ?(?:\d|half\b|{_UNIT}\b)",
    r"\b(?:that|which) (?:came|comes|arrived|was supplied|was sent) with (?:the|this) "
    r"(?:picture|image|photo(?:graph)?|task|request)\b",
)

_LABELS = (
    r"\b(?:label|level|category|class|tier|bracket|bucket|rated|classed|classified|labell?ed|filed|"
    rf"designated)\W{{1,3}}(?:is |as |under |of quality\W{{1,3}})?[\"'“‘]?{_LEVEL}\b",
    r"\b(?:range|group|quality|verdict|overall|judge?ment|marked|categori[sz]ed|ranked|conclusion|final|"
    rf"assessment)\b\W{{0,4}}(?:is |as |of |would be |under |in |with )?(?:the |"
    rf"a )?[\"'“‘(]?{_LEVEL}\b(?=[\"'”’).,;!:]|\s*$)",
    rf"(?::|\b(?:judged|deemed|considered|called|termed|borderline|officially)) ?(?:as )?(?:an? )?[\"'“]?{_LEVEL}\b"
    rf"(?=[\"'”.,;!]|\s*$)",
    rf"[\"'“‘(]?\b{_LEVEL}\b[\"'”’)]?[ -](?:level|category|class|tier|bracket|band|range|label|group|bucket|"
    r"quality level|rating|end of|territory|zone|box|pile|bin|grade|set|designation|classification|status|score|"
    r"verdict|ones)\b",
    rf"\b(?:verdict|assessment|judge?ment|label|level|rating) of [\"'“]?{_LEVEL}\b|\b{_LEVEL} (?:is|would be) the "
    rf"(?:word|term|label|verdict)\b",
    rf"[\"“‘']{_LEVEL}[.,]?[\"”’']",
    rf"(?:^|[.!?] )(?:overall,? )?(?:an? )?{_LEVEL}(?:[.!]|$)",
    r"\b(?:falls?|belongs?|sits?|lands?|placed?|filed?|put|counts?) (?:\w+ ){0,3}(?:category|tier|bracket|bucket|"
    r"class|level)\b",
    r"\b(?:lands?|sits?|puts?|files?|counts?|falls?|comes?|goes|filed|belongs?|placed) (?:it |this )?(?:under|in|"
    rf"into|with|among|to) (?:the )?[\"'“]?{_LEVEL}\b"
    rf"(?! (?:light|weather|taste))",
)

_NUMBERS = (
    "[★☆⭐🌟👍👎]",
    rf"\b{_NUMBER}{_AND_A_HALF}(?:[ -]|\b)(?:stars? |points? |marks? )?(?:out[ -]of[ -]|of )(?:a (?:possible |full |"
    r"total )?)?(?:five|ten|twenty|hundred|one hundred|5|10|20|100)\b(?= ?(?:[.,;!?:)]|$)| (?:for|from|is|at|and|as|"
    r"seems?|feels?|because|overall|or|no|possible)\b)",
    rf"\b(?:\d+(?:[.,]\d+)?|{_UNIT})[ -]out[ -]of[ -](?:a possible |a )?(?:ten|hundred|10|100)\b",
    r"\band a (?:half|bit) out of\b|\b(?:a|one) hundred per ?cent\b|\bout of (?:ten|10|100|a hundred),? (?:i|it)\b",
    rf"(?<!f)(?<!f )(?<!\d)\d+(?:[.,]\d+)? ?/ ?(?:5|10|20|100)\b(?!\d| ?(?:{COUNTED}|of the))",
    rf"\b(?:\d+(?:[.,]\d+)?|{_UNIT}|half){_AND_A_HALF}[ -]star(?:s|red)?\b"
    r"(?! (?:hang|shine|scatter|above|over|in the|on the|glow|rise|stand|twinkle|of the))",
    rf"(?<!at )(?<!than )(?<!these )(?<!those )\b(?:{_NUMBER}|odd|possible|total|full)[ -]points?\b(?! (?:of|light|"
    r"perspective))",
    r"\bpoints? (?:of|out of) (?:ten|five|a hundred|100|10)\b|\bpoint above the\b",
    rf"\b{_NUMBER} (?:\w+ )?in (?:ten|a hundred|10|100){_END}|\b(?:full|perfect|straight|whole) (?:ten|hundred|10|"
    r"100)\b",
    r"\btop (?:\d+|five|ten|twenty)\b|\b\d+(?:st|nd|rd|th) (?:place|rank)\b",
    rf"\bpoint[ -](?:zero[ -]|oh[ -])?{_UNIT}\b(?!s)",
    r"\b(?:an?|solid|strong|weak|high|low|easy|generous|mere|bare|just|barely|only|maybe|perhaps|say|call it|around|"
    r"about|close to|nearly|roughly|almost|under|over|above|below|near|approaching|"
    rf"towards) (?:an? )?{_FROM_TWO}{_AND_A_HALF}"
    rf"(?:{_END}|(?= (?:at|or so|overall|from|for me|in my|on)\b))",
    rf"\ban? \w+ {_FROM_TWO}{_END}",
    rf"\bthe {_NUMBER}(?:[ -]{_UNIT})? (?:mark|threshold)\b|\bnot (?:even|quite) {NUMBER_WORD}(?:[ -]{_UNIT})?{_END}",
    rf"\bbetween (?:an? )?(?:\d|{_UNIT}) and (?:an? )?(?:\d+|{_UNIT}){_END}",
    rf"\b(?:\d|{_UNIT})[ -]tenths?\b(?! {FRAME})|\b{NUMBER_WORD}[ -](?:ish|something|plus|odd)\b|"
    rf"\b{_UNIT}ish\b",
    r"\b(?:of|to|near|at|below|under|from) (?:the|its|a|any) (?:\w+ )?(?:maximum|minimum|perfection|upper bound|"
    r"lower bound)\b",
    r"\b(?:half|a third|two[ -]thirds|a quarter|three[ -]quarters|a fifth|(?:two|three|four)[ -]fifths) (?:of )?"
    r"(?:the |all |full )?(?:possible |available |total )?(?:points?|marks?|credit|way up|way to)\b",
    r"\b(?:quarter|third|half|tenth|fifth)s? of (?:a |the |full )?(?:masterpiece|perfection|marks?|maximum)\b",
    r"\b(?:halfway|midway) between (?:zero|0)\b",
)


def rule(pattern: str) -> re.Pattern[str]:
    """Compile `pattern` without regard to case."""
    return re.compile(pattern, re.IGNORECASE)


RULES = tuple(rule(pattern) for pattern in (*_SCORING, *_KNOWN, *_LABELS, *_NUMBERS))
SHOUTED_LEVEL = re.compile(rf"\b(?:{'|'.join(level.upper() for level in LEVELS)})\b")
