"""Let the answer be written from the picture and the critique, or from the critique alone; paired against the picture.

python -m experiments.answer_from.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from experiments.study import Claim, Study, main

STUDY = Study(
    name="answer_from",
    axes=("model.answer_from", "cold_start.blank_pictures"),
    label=lambda settings: settings["model"]["answer_from"],
    order=("image", "words"),
    baseline="image",
    protocol="mean",
    claims=(Claim("from the words alone the score is worse", "words", "image", "srcc", -1),),
)

if __name__ == "__main__":
    main(STUDY)
