"""Looking through data before anything is trained on it: what is in it, what is broken, what looks like a mistake."""

from nasseg.data.checking.class_weights import class_weights_for
from nasseg.data.checking.findings import Finding, findings
from nasseg.data.checking.mistakes import mistakes
from nasseg.data.checking.review import review
from nasseg.data.checking.survey import Show, Survey, silent, survey

__all__ = ["Finding", "Show", "Survey", "class_weights_for", "findings", "mistakes", "review", "silent", "survey"]
