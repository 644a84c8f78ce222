-- Times are seconds since 1970 (UTC). Texts are never rewritten on their way in or out.
CREATE TABLE setting (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE annotator (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE COLLATE NOCASE,
  specialty TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
  role TEXT NOT NULL CHECK (role IN ('annotator', 'adjudicator', 'dataset')),
  -- NULL cannot log in: people of an imported file, and data sets.
  password_hash TEXT,
  active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
  -- Raised by a new password or a lock-out: older sessions end.
  session_version INTEGER NOT NULL DEFAULT 0,
  -- Shuffles the items of this annotator.
  salt INTEGER NOT NULL,
  added_at REAL NOT NULL
) STRICT;

CREATE TABLE login_failure (
  name TEXT NOT NULL COLLATE NOCASE,
  address TEXT NOT NULL,
  at REAL NOT NULL
) STRICT;
CREATE INDEX login_failure_at ON login_failure (at);

CREATE TABLE item (
  id INTEGER PRIMARY KEY,
  -- SHA-256 of the prompt and both texts, whatever their order: the same pair is never there twice.
  key TEXT NOT NULL UNIQUE,
  prompt TEXT NOT NULL CHECK (json_valid(prompt)),
  specialty TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
  ratings_wanted INTEGER NOT NULL CHECK (ratings_wanted >= 1),
  gold TEXT CHECK (gold IN ('first', 'second', 'tie', 'both_unsafe')),
  shuffle INTEGER NOT NULL,
  source TEXT NOT NULL,
  external_id TEXT NOT NULL DEFAULT '',
  meta TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(meta)),
  added_at REAL NOT NULL
) STRICT;

CREATE TABLE answer (
  item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
  position INTEGER NOT NULL CHECK (position IN (0, 1)),
  model TEXT NOT NULL DEFAULT '',
  text TEXT NOT NULL CHECK (length(text) > 0),
  PRIMARY KEY (item_id, position)
) STRICT, WITHOUT ROWID;

-- An item on somebody's desk: which answer lies on the left, and what was typed so far.
CREATE TABLE assignment (
  item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
  annotator_id INTEGER NOT NULL REFERENCES annotator ON DELETE CASCADE,
  left_position INTEGER NOT NULL CHECK (left_position IN (0, 1)),
  opened_at REAL NOT NULL,
  -- Until then nobody else is given the item instead.
  leased_until REAL NOT NULL,
  skipped_at REAL,
  draft TEXT CHECK (draft IS NULL OR json_valid(draft)),
  draft_number INTEGER NOT NULL DEFAULT 0,
  draft_at REAL,
  PRIMARY KEY (item_id, annotator_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX assignment_of ON assignment (annotator_id, item_id);

CREATE TABLE judgement (
  id INTEGER PRIMARY KEY,
  item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
  annotator_id INTEGER NOT NULL REFERENCES annotator,
  -- Settles a disagreement, instead of being one opinion among others.
  adjudicates INTEGER NOT NULL DEFAULT 0 CHECK (adjudicates IN (0, 1)),
  -- a was on the left: answer 0 of the item, or answer 1.
  left_position INTEGER NOT NULL CHECK (left_position IN (0, 1)),
  preference TEXT NOT NULL
    CHECK (preference IN ('a', 'b', 'tie', 'both_unsafe', 'cannot_judge')),
  strength INTEGER CHECK (strength BETWEEN 1 AND 3),
  unsafe_a INTEGER NOT NULL DEFAULT 0 CHECK (unsafe_a IN (0, 1)),
  unsafe_b INTEGER NOT NULL DEFAULT 0 CHECK (unsafe_b IN (0, 1)),
  category_a TEXT NOT NULL DEFAULT '',
  category_b TEXT NOT NULL DEFAULT '',
  error_a INTEGER NOT NULL DEFAULT 0 CHECK (error_a IN (0, 1)),
  error_b INTEGER NOT NULL DEFAULT 0 CHECK (error_b IN (0, 1)),
  rationale TEXT NOT NULL DEFAULT '',
  correction TEXT NOT NULL DEFAULT '',
  correction_base TEXT NOT NULL DEFAULT '' CHECK (correction_base IN ('', 'a', 'b')),
  revision INTEGER NOT NULL DEFAULT 1,
  -- From first sight to saving, and the part of it that the page was in front (NULL: not known).
  wall_seconds REAL,
  active_seconds REAL,
  saved_at REAL NOT NULL,
  UNIQUE (item_id, annotator_id)
) STRICT;
CREATE INDEX judgement_by ON judgement (annotator_id, saved_at);
CREATE UNIQUE INDEX one_adjudication ON judgement (item_id) WHERE adjudicates = 1;

CREATE TABLE earlier_judgement (
  judgement_id INTEGER NOT NULL REFERENCES judgement ON DELETE CASCADE,
  revision INTEGER NOT NULL,
  content TEXT NOT NULL CHECK (json_valid(content)),
  replaced_at REAL NOT NULL,
  PRIMARY KEY (judgement_id, revision)
) STRICT, WITHOUT ROWID;

-- Judgements in the item's own order of answers, with who gave them.
CREATE VIEW opinion AS
SELECT judgement.id, item_id, annotator_id, adjudicates, left_position, strength, revision,
  wall_seconds, active_seconds, saved_at, rationale, correction, preference AS shown_preference,
  annotator.name, annotator.specialty, annotator.role,
  CASE WHEN preference = 'a' THEN iif(left_position = 0, 'first', 'second')
       WHEN preference = 'b' THEN iif(left_position = 0, 'second', 'first')
       ELSE preference END AS preference,
  iif(left_position = 0, unsafe_a, unsafe_b) AS unsafe_first,
  iif(left_position = 0, unsafe_b, unsafe_a) AS unsafe_second,
  iif(left_position = 0, category_a, category_b) AS category_first,
  iif(left_position = 0, category_b, category_a) AS category_second,
  iif(left_position = 0, error_a, error_b) AS error_first,
  iif(left_position = 0, error_b, error_a) AS error_second,
  CASE WHEN correction_base = '' THEN ''
       WHEN (correction_base = 'a') = (left_position = 0) THEN 'first'
       ELSE 'second' END AS correction_base
FROM judgement JOIN annotator ON annotator.id = annotator_id;

-- Items with all the ratings they want, on which the experts differ or could not judge.
CREATE VIEW dispute AS
SELECT item_id, min(saved_at) AS since,
  count(DISTINCT preference) > 1 AS preferences_differ,
  max(unsafe_first) <> min(unsafe_first) OR max(unsafe_second) <> min(unsafe_second)
    AS safety_differs,
  max(preference = 'cannot_judge') AS could_not_judge
FROM opinion JOIN item ON item.id = item_id
WHERE role <> 'dataset' AND adjudicates = 0 AND gold IS NULL
  AND NOT EXISTS (SELECT 1 FROM judgement AS settled
                  WHERE settled.item_id = opinion.item_id AND settled.adjudicates = 1)
GROUP BY item_id
HAVING count(*) >= min(ratings_wanted)
  AND (preferences_differ OR safety_differs OR could_not_judge);
