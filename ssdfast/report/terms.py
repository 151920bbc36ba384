"""The terms of the page, each defined in the section where it stands."""

from __future__ import annotations

import html

TERMS = {
    "Baseline, trained": "The model before and after training. Both score the same traces at the same positions; a"
    " change is always trained − baseline.",
    "Position": "A place in a trace at which both models predict the next token, counted from 0 at the first generated"
    " token.",
    "Trace": "One answer of a model to a problem, as token ids.",
    "Shift": "The difference between the two models' distributions at a position, as KL(trained ‖ baseline).",
    "KL": "KL(trained ‖ baseline) over the whole vocabulary at T = 1, in nats: 0 where the models agree. 0.01 is hardly"
    " visible, 0.1 a clear shift, 1 another distribution.",
    "JS": "Jensen-Shannon divergence, in nats, between 0 and ln 2 ≈ 0.693.",
    "Nat": "The unit of information with natural logarithms; 1 nat is 1.44 bits.",
    "Entropy": "Of a model's own distribution over the whole vocabulary, in nats.",
    "Nucleus": "The smallest set of most likely tokens that holds the mass p of top-p. Its size is in tokens.",
    "Tail mass": "The probability outside the k most likely tokens.",
    "Rank": "The rank of the trace's token among all tokens; 0 is the most likely.",
    "Lock": "A position at which the baseline is nearly certain of one token. Strict: both models have the same top"
    " token. Top-1 changed: training put another token on top. Self-correction: the token begins one, such as Wait or"
    " But.",
    "Fork": "A position at which several tokens are likely, and none reaches one half.",
    "Diffuse": "A position without a favourite, with much mass outside the top k.",
    "Mixed": "A position that is no lock, no fork and not diffuse.",
    "Self-distillation": "Training on the model's own samples, drawn at a training temperature and truncated to its"
    " top k and top p. The prediction is the first step from the baseline toward that distribution.",
    "Alignment": "The correlation, under the baseline, between the change of log-probability and the prediction of"
    " self-distillation: +1 straight along it, −1 straight away.",
    "Fraction along self-distillation": "The squared alignment, weighted by the variance of each position's shift: the"
    " fraction of the shift's variance along the predicted direction, either way.",
    "Interval": "95 %, from a bootstrap over whole traces, since positions of one trace are not independent.",
    "Cut": "A candidate outside the support of the training samples. Self-distillation alone lowers its probability.",
    "Under decoding": "After the temperature, top-k and top-p of the evaluation.",
    "Grade": "Whether the answer of a trace equals the gold answer, the one that the problem's author gives.",
    "Arm": "A training recipe that is compared; each of its seeds gives one trained model.",
    "Control": "The arm trained on samples at T = 1 without truncation, for which self-distillation predicts no"
    " direction.",
    "Component": "A part of the shift: self-distillation, a temperature, an EOS bias (the end of the text or of the"
    " thinking becomes more or less likely), and the residual that these three leave.",
    "Verdict": "The components of an arm that differ from the control's at a corrected p-value of 0.05.",
    "Strength": "s, if the trained model were (1 − s) baseline + s times the distribution of the training samples.",
    "p-value, Holm": "The probability of so large a difference without an effect, and the same corrected for all tests"
    " (Holm 1979).",
    "Minimum detectable effect": "The smallest difference that the comparison finds with a power of 80 %, in percentage"
    " points; nothing can be concluded from a smaller one.",
    "Discordant problems": "Problems on which the two runs differ.",
    "Truncated": "Stopped by the maximum number of tokens.",
    "Loops, repetition": "A loop repeats one passage again and again; repetition is the fraction of 4-grams that occur"
    " earlier in the answer.",
    "Loss": "Cross-entropy of the training labels, in nats per completion token.",
    "Gradient norm": "The length of the gradient of a step before clipping.",
    "Noise over signal": "The variance of a step's gradient between traces over its squared mean.",
    "Soft labels": "Training on the whole distribution that each token was sampled from, in place of the one token.",
}
SECTIONS = {
    "summary": ("Shift", "KL", "Nat", "Self-distillation", "Fraction along self-distillation", "Alignment", "Interval"),
    "positions": ("Position", "Lock", "Fork", "Diffuse", "Mixed", "Nucleus", "KL"),
    "shift": (
        *("Baseline, trained", "Shift", "Nat", "Fraction along self-distillation", "Entropy", "Nucleus", "Tail mass"),
        "Interval",
    ),
    "traces": (
        *("Trace", "Position", "Grade", "KL", "JS", "Alignment", "Entropy", "Nucleus", "Tail mass", "Rank"),
        *("Lock", "Fork", "Diffuse", "Mixed", "Cut", "Under decoding"),
    ),
    "verdicts": ("Verdict", "Arm", "Control", "Component", "Shift", "Nat"),
    "arms": ("Arm", "Control", "Trace", "Loss", "Shift", "Soft labels", "Verdict"),
    "accuracy": (
        *("Interval", "p-value, Holm", "Minimum detectable effect", "Discordant problems", "Truncated"),
        "Loops, repetition",
    ),
    "training": ("Loss", "Gradient norm", "Noise over signal"),
    "components": (
        *("Component", "Strength", "Alignment", "Fraction along self-distillation", "Lock", "Fork", "Diffuse", "Mixed"),
        *("Nucleus", "p-value, Holm"),
    ),
    "decoding": ("Under decoding", "Nucleus", "Tail mass", "Interval"),
    "filters": ("Trace", "Truncated", "Grade"),
}
"""The terms of each section, by the marker in its template."""


def terms(section: str) -> str:
    """HTML: the definitions of a section's terms."""
    pairs = ((html.escape(name), html.escape(TERMS[name])) for name in SECTIONS[section])
    items = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in pairs)
    return f'<details class="terms"><summary>Terms</summary><dl class="definitions">{items}</dl></details>'


def all_terms() -> dict[str, str]:
    """The pieces of a template, ``terms_SECTION``."""
    return {f"terms_{section}": terms(section) for section in SECTIONS}
