"""The prompt of the benchmarks that sample sums from SmolLM2: their figures were measured with two worked examples."""

from __future__ import annotations

from ssdfast.config import FewshotExample, PromptConfig

PROMPT = PromptConfig(
    system="Show your work.",
    instruction="{question}",
    fewshot=(
        FewshotExample(question="2 + 7 = ?", answer="We have 2 + 7 = 9. The answer is 9."),
        FewshotExample(question="8 - 3 = ?", answer="First, 8 - 3 = 5. So the answer is 5."),
    ),
)
