"""Questions, the answers of a model, and whether they are right: the judge, and labelled texts from its verdicts."""
