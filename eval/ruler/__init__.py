"""RULER (Hsieh et al., 2024): thirteen synthetic questions about a long text. Without torch.

Mode `ruler` builds them as the published numbers were built: sizes in steps, one shuffle for all
samples. Mode `ruler_exact` asks the same with full prompts, the answer's place swept, and wording
of our own.

configurations.py  the thirteen: what is hidden, how it is asked, answered and scored
wording.py         the texts of the prompts: our own, or of a file
harness.py         the texts that the installed lm-evaluation-harness has
words.py           adjectives, nouns and verbs, or pronounceable words
haystacks.py       prose, lines of noise, lines of other needles; where a needle goes
question_files.py  SQuAD and HotpotQA as questions over documents
inputs.py          reads the files that the settings name
draft.py           a question of any size: the interface, its random choices, examples
niah.py            needles in a haystack (eight configurations)
tracking.py        variable tracking
frequency.py       common words, and frequent coded words
documents.py       question answering over documents
build.py           the draft of a configuration, with its solved examples
fitting.py         the size whose prompt fits a length
cells.py           the samples of a configuration at a length, or why there are none
scoring.py         the score of a reply, and the score by chance
rows.py            accuracies with intervals, from the replies
"""
