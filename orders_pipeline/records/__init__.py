"""What a record is, and what judges one: values in, values out.

`orders.py` is the catalogue: columns and their rules. `record_type.py` and `rules.py` say what a catalogue is made of,
`judgement.py` judges rows by it and makes its Pandera schemas, and `rejections.py` has every code with its words.
"""
