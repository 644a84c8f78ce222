"""Files of other tools to items: pairs of answers, with the judgements that they come with."""
