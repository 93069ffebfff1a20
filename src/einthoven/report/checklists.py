"""Reporting checklists: the items that a page fills, and those that the author has to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from einthoven.report.format import NONE
from einthoven.report.tables import Cell, Table


@dataclass(frozen=True)
class Item:
    """An item of a checklist.

    Attributes
    ----------
    number, topic : str
    sections : tuple of str
        Sections of a page that fill it, at least in part.
    author : str
        What remains for the author to write; empty where a page with the sections is enough.
    """

    number: str
    topic: str
    sections: tuple[str, ...] = ()
    author: str = ""


@dataclass(frozen=True)
class Checklist:
    """A published checklist.

    Attributes
    ----------
    identity, name, source : str
    items : tuple of Item
        All of them, in the order of the publication; topics are abridged.
    """

    identity: str
    name: str
    source: str
    items: tuple[Item, ...]

    def filled(self, sections: Mapping[str, str]) -> int:
        """Number of items that need nothing from the author, on a page with these sections."""
        complete = [item for item in self.items if not item.author]
        return sum(any(s in sections for s in item.sections) for item in complete)

    def table(self, sections: Mapping[str, str]) -> Table:
        """Table of the items; `sections` are the headings of a page by identity."""
        rows: list[list[Cell]] = []
        for item in self.items:
            places = [s for s in item.sections if s in sections]
            link = Markup('<a href="#{}">{}</a>')
            links = Markup(", ").join(link.format(place, sections[place]) for place in places)
            author = item.author or ("" if places else "everything: this page has no such section")
            rows.append([item.number, item.topic, links or NONE, author or NONE])
        head = ["Item", "Topic", "On this page", "For the author to write"]
        return Table(self.identity, f"{self.name}: {self.source}.", head, rows, kind="dense items")


_RESULTS = ("results", "labels", "decisions", "curves")

TRIPOD_AI = Checklist(
    "checklist-tripod-ai",
    "TRIPOD+AI",
    "Collins et al., BMJ 2024, 385:e078378",
    (
        Item("1", "Title", (), "study type, population and outcome"),
        Item("2", "Abstract", (), "structured abstract"),
        Item("3a", "Context and rationale", (), "clinical question, existing models"),
        Item("3b", "Target population and use", (), "patients, place in care, users"),
        Item("3c", "Health inequalities", (), "those known between groups of patients"),
        Item("4", "Objectives", (), "development, evaluation or both"),
        Item(
            "5a", "Sources of data", ("population", "provenance"), "why these; representativeness"
        ),
        Item("5b", "Dates", ("population",), "dates that are not recorded; follow-up"),
        Item("6a", "Setting", (), "hospitals, their number and location"),
        Item("6b", "Eligibility", ("population",), "criteria by which records were collected"),
        Item("6c", "Treatments", (), "those received, if relevant"),
        Item("7", "Preparation of data", ("provenance",), "steps before the files were written"),
        Item("8a", "Outcome", ("population",), "how, when and why it was assessed"),
        Item("8b", "Assessors of the outcome", (), "qualifications, if it is a judgement"),
        Item("8c", "Blinding to predictors", (), "who saw what when labels were assigned"),
        Item("9a", "Choice of predictors", (), "why the ECG, and no other data"),
        Item("9b", "Predictors", ("population", "provenance"), "recorder, leads, circumstances"),
        Item("9c", "Assessors of predictors", (), "qualifications, if judgement is involved"),
        Item("10", "Sample size", ("population",), "how it was determined; whether it is enough"),
        Item("11", "Missing data", ("population", "robustness"), "missing labels and recordings"),
        Item("12a", "Use of the data", ("population", "summary", "provenance")),
        Item("12b", "Handling of predictors", ("provenance",)),
        Item("12c", "Model and its building", ("summary", "training", "provenance"), "rationale"),
        Item("12d", "Heterogeneity", ("subgroups",), "hospitals, devices and other clusters"),
        Item("12e", "Measures of performance", (*_RESULTS, "calibration")),
        Item("12f", "Model updating", ("calibration",)),
        Item("12g", "Calculation of predictions", ("provenance",)),
        Item("13", "Class imbalance", ("calibration",), "methods against it, if any, and why"),
        Item("14", "Fairness", ("subgroups",), "approach and rationale"),
        Item("15", "Output of the model", ("decisions",), "clinical rationale of thresholds"),
        Item("16", "Development against evaluation", ("population",), "setting, criteria, outcome"),
        Item("17", "Ethical approval", (), "committee; consent or waiver"),
        Item("18a", "Funding", (), "sources and their role"),
        Item("18b", "Conflicts of interest", (), "of all authors"),
        Item("18c", "Protocol", (), "where it is, or that there is none"),
        Item("18d", "Registration", (), "register and number, or that there is none"),
        Item("18e", "Data sharing", (), "availability of the data"),
        Item("18f", "Code sharing", ("provenance",), "availability of the code and the model"),
        Item("19", "Patients and public", (), "involvement, or that there was none"),
        Item("20a", "Flow of participants", ("population",), "before the files were collected"),
        Item("20b", "Characteristics", ("population",), "those that the source does not have"),
        Item("20c", "Development and evaluation compared", ("population",)),
        Item("21", "Participants and outcomes by analysis", ("population", "labels")),
        Item("22", "Specification of the model", ("provenance",), "where the model is available"),
        Item("23a", "Performance with intervals", (*_RESULTS, "calibration", "subgroups")),
        Item("23b", "Heterogeneity of performance", ("subgroups",), "results by hospital"),
        Item("24", "Results of model updating", ("calibration",)),
        Item("25", "Interpretation", (), "including fairness and earlier studies"),
        Item("26", "Limitations", ("limitations",), "those of the study and its population"),
        Item("27a", "Poor or missing input", ("robustness",), "what is done in use"),
        Item("27b", "Users", (), "interaction and expertise that are needed"),
        Item("27c", "Next steps", (), "applicability, further evaluation"),
    ),
)

CLAIM = Checklist(
    "checklist-claim",
    "CLAIM 2024",
    "Tejani et al., Radiology: Artificial Intelligence 2024, 6(4):e240300, for medical imaging; "
    "an ECG takes the place of an image",
    (
        Item("1", "Title: kind of AI", (), "title"),
        Item("2", "Abstract", (), "structured abstract"),
        Item("3", "Background and intended role", (), "clinical role of the model"),
        Item("4", "Aims and hypotheses", (), "aims and hypotheses"),
        Item("5", "Prospective or retrospective", (), "which of the two"),
        Item("6", "Goal of the study", (), "development, feasibility, comparison"),
        Item("7", "Sources of data", ("population", "provenance"), "hospitals, years, access"),
        Item("8", "Inclusion and exclusion", ("population",), "criteria before the files"),
        Item("9", "Preprocessing", ("provenance",), "steps before the files were written"),
        Item("10", "Selection of subsets", ("population",), "subsets before the files"),
        Item("11", "De-identification", (), "method"),
        Item("12", "Missing data", ("population",), "missing labels and recordings"),
        Item("13", "Acquisition", ("population",), "recorder, electrodes, circumstances"),
        Item("14", "Reference standard", ("population",), "how labels were obtained"),
        Item("15", "Choice of the standard", (), "rationale, alternatives"),
        Item("16", "Annotators", (), "number, qualifications, instructions"),
        Item("17", "Annotation of the test set", (), "where it differs"),
        Item("18", "Variability of annotators", (), "between and within annotators"),
        Item("19", "Assignment to partitions", ("population",), "how, if the table assigned them"),
        Item("20", "Level of disjoint partitions", ("population",)),
        Item("21", "Sample size of the test set", ("population",), "how it was determined"),
        Item("22", "Model", ("summary", "provenance"), "architecture: see the backbone"),
        Item("23", "Software", ("provenance",)),
        Item("24", "Initial parameters", ("provenance",)),
        Item("25", "Training", ("training", "provenance")),
        Item("26", "Selection of the model", ("training", "provenance")),
        Item("27", "Ensembles", ("summary",)),
        Item("28", "Measures of performance", _RESULTS),
        Item("29", "Uncertainty and significance", ("results", "differences", "curves")),
        Item("30", "Robustness", ("robustness",)),
        Item("31", "Explainability", (), "methods, if any were used"),
        Item("32", "Evaluation on internal data", ("results",)),
        Item("33", "Testing on external data", (), "another hospital: einthoven card --cohort"),
        Item("34", "Trial registration", (), "number, if it is a trial"),
        Item("35", "Included and excluded", ("population",), "before the files were collected"),
        Item("36", "Characteristics by partition", ("population",), "clinical characteristics"),
        Item("37", "Performance", _RESULTS),
        Item("38", "Diagnostic accuracy", ("decisions", "curves")),
        Item("39", "Analysis of failures", ("errors",), "patterns, their causes"),
        Item("40", "Limitations", ("limitations",), "those of the study"),
        Item("41", "Implications", (), "for practice; intended use"),
        Item("42", "Protocol", (), "where it is available"),
        Item("43", "Software, model and data", ("provenance",), "availability"),
        Item("44", "Funding", (), "sources and their role"),
    ),
)

CHECKLISTS = (TRIPOD_AI, CLAIM)
