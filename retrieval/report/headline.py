"""Chooses the headline method of the report, on validation data and never on the reported results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval.results.decodings import CerResult
from retrieval.results.training import Metrics

METHOD_NAMES = {
    "ctc": "CTC",
    "greedy": "transducer, greedy search",
    "beam": "transducer, beam search",
    "attention": "attention decoder",
}
# The head that each method uses. Validation during training runs only greedy search; its error rate is used
# for both searches of the transducer.
HEADS = {"ctc": "CTC", "greedy": "transducer", "beam": "transducer", "attention": "attention decoder"}
VALIDATION_SPLIT = "valid"


@dataclass(frozen=True)
class Evidence:
    """Error rates on validation data.

    Attributes:
        source: name of the source, written so that it can follow the word "in".
        rates: CER in per cent by method, the mean over trained dialects.
    """

    source: str
    rates: Mapping[str, float]


@dataclass(frozen=True)
class Headline:
    """The method of the headline numbers, and a sentence about how it was chosen.

    ``method`` is None if there is no validation data to choose by.
    """

    method: str | None
    rule: str


def method_name(method: str) -> str:
    """Name of a method in tables and captions."""
    return METHOD_NAMES.get(method, method)


def mean_rate(result: CerResult, trained: Sequence[str] | None) -> float | None:
    """Mean CER over the trained dialects (all, if these are unknown); None if none has a rate."""
    rates = [
        row.cer
        for row in result.level("dialect")
        if row.cer is not None and (trained is None or row.name in trained)
    ]
    return sum(rates) / len(rates) if rates else None


def choose_headline(methods: Sequence[str], evidence: Iterable[Evidence]) -> Headline | None:
    """Choose one of the methods that were run.

    The choice is the head with the lowest validation CER, by the first evidence that covers at least two of
    the heads that were run; of the two searches of the transducer, beam search, the wider one.

    Args:
        methods: methods with results.
        evidence: validation error rates, the most precise first.
    """
    if not methods:
        return None
    if len(methods) == 1:
        return Headline(methods[0], f"{method_name(methods[0])}: the only method that was run.")
    heads = dict.fromkeys(HEADS.get(method, method) for method in methods)
    if list(heads) == ["transducer"]:
        return Headline("beam", f"{method_name('beam')}, which looks further than greedy search.")
    for found in evidence:
        rates = {method: rate for method in methods if (rate := _rate(method, found.rates)) is not None}
        judged = {HEADS.get(method, method): rate for method, rate in rates.items()}
        if len(judged) < 2:
            continue
        best = min(rates, key=lambda method: (rates[method], method != "beam"))
        numbers = ", ".join(f"{method_name(method)} {rate:.1f} %" for method, rate in found.rates.items())
        unjudged = [head for head in heads if head not in judged]
        left = f" There is no such number for the {' and the '.join(unjudged)}." if unjudged else ""
        return Headline(
            best,
            f"{method_name(best)}. Its head has the lowest mean CER over trained dialects in {found.source}:"
            f" {numbers}.{left} The results on this page had no part in the choice.",
        )
    return Headline(
        None,
        "no validation results say which method to prefer, and the results themselves must not: all are"
        f" shown. To choose one, decode the validation data with each method (split={VALIDATION_SPLIT}).",
    )


def evidence_for(
    validation: Sequence[CerResult],
    provenance: Mapping[str, Any] | None,
    metrics: Metrics | None,
    *,
    trained: Sequence[str] | None,
    transducer: bool,
) -> list[Evidence]:
    """Error rates of the methods on validation data, the most precise evidence first.

    Args:
        validation: results of decoding the validation split with the weights of the report.
        provenance: provenance of the model directory; may contain the error rates by which the averaged steps
            were chosen.
        metrics: metrics of the training.
        trained: trained dialects; None if unknown.
        transducer: True if the model has a transducer; without one, training reports the validation of CTC as
            ``cer``.
    """
    decoded = {
        result.method: rate for result in validation if (rate := mean_rate(result, trained)) is not None
    }
    found = [Evidence(f"the split {VALIDATION_SPLIT}", decoded)]
    provenance = provenance or {}
    steps, window = provenance.get("steps"), provenance.get("window")
    for candidate in window.get("candidates", []) if isinstance(window, Mapping) else []:
        if candidate.get("steps") == steps and isinstance(candidate.get("cer"), Mapping):
            found.append(Evidence("the validation that chose the averaged steps", candidate["cer"]))
    if metrics is not None:
        last_step = steps[-1] if isinstance(steps, list) and steps else None
        lines = [line for line in metrics.valid if last_step is None or line["step"] <= last_step]
        if lines:
            names = {"cer": "greedy" if transducer else "ctc", "cer_ctc": "ctc"}
            rates = {
                method: rate
                for key, method in names.items()
                if (rate := _mean_over(lines[-1].get(key, {}), trained)) is not None
            }
            source = f"the last validation of the training, at step {lines[-1]['step']} without averaging"
            found.append(Evidence(source, rates))
    return found


def _rate(method: str, rates: Mapping[str, float]) -> float | None:
    """Rate of a method; for beam search that of greedy search if only this was validated."""
    return rates.get(method, rates.get("greedy") if method == "beam" else None)


def _mean_over(rates: Mapping[str, float], trained: Sequence[str] | None) -> float | None:
    chosen = [
        rate for name, rate in rates.items() if name != "overall" and (trained is None or name in trained)
    ]
    return sum(chosen) / len(chosen) if chosen else None
