-- The first schema. Times are epoch milliseconds, documents JSON text, flags 0 or 1, ids UUID text; seeds are u64
-- bits read as a signed number. Columns that sort or look up compare by bytes (collation C), as SQLite does.
-- Documents of some kilobytes are kept as they are: compressing them took a tenth of a Create.

-- What the training jobs of one tuning job share; its id is the tuning job's.
CREATE TABLE definitions (
    id              TEXT COLLATE "C" NOT NULL CONSTRAINT definitions_pk PRIMARY KEY,
    tuning_job_name TEXT,
    document        TEXT NOT NULL,
    objective       TEXT
) WITH (toast_tuple_target = 8160);

CREATE TABLE tuning_jobs (
    account           TEXT COLLATE "C" NOT NULL,
    region            TEXT COLLATE "C" NOT NULL,
    name_key          TEXT COLLATE "C" NOT NULL,
    id                TEXT COLLATE "C" NOT NULL CONSTRAINT tuning_jobs_id_unique UNIQUE
        CONSTRAINT tuning_jobs_definition_fk REFERENCES definitions (id),
    name              TEXT NOT NULL,
    status            TEXT COLLATE "C" NOT NULL CONSTRAINT tuning_jobs_status_known CHECK
        (status IN ('Completed', 'InProgress', 'Failed', 'Stopped', 'Stopping', 'Deleting', 'DeleteFailed')),
    strategy          TEXT NOT NULL CONSTRAINT tuning_jobs_strategy_known CHECK
        (strategy IN ('Bayesian', 'Random', 'Hyperband', 'Grid', 'TPE', 'SMAC', 'Anneal')),
    seed              BIGINT NOT NULL,
    max_jobs          BIGINT NOT NULL,
    max_parallel      BIGINT NOT NULL,
    max_runtime_ms    BIGINT,
    created_at        BIGINT NOT NULL,
    modified_at       BIGINT NOT NULL,
    ended_at          BIGINT,
    stop_requested_at BIGINT,
    failure_reason    TEXT,
    completed         BIGINT NOT NULL,
    in_progress       BIGINT NOT NULL,
    retryable_error   BIGINT NOT NULL,
    non_retryable_error BIGINT NOT NULL,
    stopped           BIGINT NOT NULL,
    objective_succeeded BIGINT NOT NULL,
    objective_pending BIGINT NOT NULL,
    objective_failed  BIGINT NOT NULL,
    best_id           TEXT COLLATE "C",
    best_value        DOUBLE PRECISION,
    observed          BIGINT NOT NULL,
    inserted          BIGINT NOT NULL,
    not_improving     BIGINT NOT NULL,
    exhausted         BIGINT NOT NULL CONSTRAINT tuning_jobs_exhausted_flag CHECK (exhausted IN (0, 1)),
    lease_owner       TEXT COLLATE "C",
    lease_epoch       BIGINT NOT NULL,
    request           TEXT NOT NULL,
    config            TEXT NOT NULL,
    CONSTRAINT tuning_jobs_pk PRIMARY KEY (account, region, name_key),
    CONSTRAINT tuning_jobs_budget CHECK (inserted <= max_jobs),
    CONSTRAINT tuning_jobs_best_whole CHECK ((best_id IS NULL) = (best_value IS NULL))
);
-- Out of the row, which every decision writes anew, and as it is.
ALTER TABLE tuning_jobs ALTER COLUMN request SET STORAGE EXTERNAL;
CREATE INDEX tuning_jobs_by_creation ON tuning_jobs (account, region, created_at, name_key);
CREATE INDEX tuning_jobs_by_status ON tuning_jobs (account, region, status, name_key);
-- Status first, so that it finds what is not over in all regions, too.
CREATE INDEX tuning_jobs_by_status_creation ON tuning_jobs (status, account, region, created_at, name_key);

CREATE TABLE training_jobs (
    account           TEXT COLLATE "C" NOT NULL,
    region            TEXT COLLATE "C" NOT NULL,
    name_key          TEXT COLLATE "C" NOT NULL,
    id                TEXT COLLATE "C" NOT NULL CONSTRAINT training_jobs_id_unique UNIQUE,
    name              TEXT NOT NULL,
    tuning_job_id     TEXT COLLATE "C",
    definition_id     TEXT COLLATE "C" NOT NULL CONSTRAINT training_jobs_definition_fk REFERENCES definitions (id),
    ordinal           BIGINT NOT NULL,
    watermark         BIGINT NOT NULL,
    pending           TEXT NOT NULL,
    tuned             TEXT NOT NULL,
    status            TEXT COLLATE "C" NOT NULL CONSTRAINT training_jobs_status_known CHECK
        (status IN ('InProgress', 'Completed', 'Failed', 'Stopping', 'Stopped', 'Deleting')),
    secondary         TEXT NOT NULL,
    transitions       TEXT NOT NULL,
    failure_reason    TEXT,
    created_at        BIGINT NOT NULL,
    modified_at       BIGINT NOT NULL,
    started_at        BIGINT,
    ended_at          BIGINT,
    stop_requested_at BIGINT,
    stopped_early     BIGINT NOT NULL CONSTRAINT training_jobs_stopped_early_flag CHECK (stopped_early IN (0, 1)),
    objective_status  TEXT NOT NULL CONSTRAINT training_jobs_objective_status_known CHECK
        (objective_status IN ('Succeeded', 'Pending', 'Failed')),
    objective_value   DOUBLE PRECISION,
    final_metrics     TEXT NOT NULL,
    model_artifacts   TEXT,
    attempts          BIGINT NOT NULL,
    observation       BIGINT,
    CONSTRAINT training_jobs_pk PRIMARY KEY (account, region, name_key),
    CONSTRAINT training_jobs_ordinal_unique UNIQUE (tuning_job_id, ordinal)
);
CREATE INDEX training_jobs_by_creation ON training_jobs (account, region, created_at, name_key);
CREATE INDEX training_jobs_by_status ON training_jobs (account, region, status, name_key);
CREATE INDEX training_jobs_by_status_creation ON training_jobs (account, region, status, created_at, name_key);
CREATE INDEX training_jobs_of_tuning_by_name ON training_jobs (tuning_job_id, name_key);
CREATE INDEX training_jobs_of_tuning_by_creation ON training_jobs (tuning_job_id, created_at, name_key);
CREATE INDEX training_jobs_of_tuning_by_status ON training_jobs (tuning_job_id, status, name_key);
CREATE INDEX training_jobs_of_tuning_by_objective ON training_jobs (tuning_job_id, objective_value, name_key)
    WHERE objective_value IS NOT NULL;
-- What a tuning job decides on, however many of its training jobs are over.
CREATE INDEX training_jobs_live ON training_jobs (tuning_job_id, ordinal)
    WHERE status IN ('InProgress', 'Stopping', 'Deleting');
CREATE INDEX training_jobs_by_definition ON training_jobs (definition_id);

CREATE TABLE attempts (
    training_job_id TEXT COLLATE "C" NOT NULL CONSTRAINT attempts_training_job_fk REFERENCES training_jobs (id),
    number          BIGINT NOT NULL,
    executor_id     TEXT COLLATE "C" NOT NULL,
    state           TEXT NOT NULL CONSTRAINT attempts_state_known CHECK (state IN ('Inserted', 'Ended', 'Removed')),
    stop_requested  BIGINT NOT NULL CONSTRAINT attempts_stop_flag CHECK (stop_requested IN (0, 1)),
    end_record      TEXT,
    inserted_at     BIGINT NOT NULL,
    CONSTRAINT attempts_pk PRIMARY KEY (training_job_id, number)
);
CREATE INDEX attempts_held ON attempts (executor_id, inserted_at) WHERE state <> 'Removed';

CREATE TABLE hosts (
    training_job_id TEXT COLLATE "C" NOT NULL,
    attempt         BIGINT NOT NULL,
    host            BIGINT NOT NULL,
    read_offset     BIGINT NOT NULL,
    non_finite      BIGINT NOT NULL,
    CONSTRAINT hosts_pk PRIMARY KEY (training_job_id, attempt, host),
    CONSTRAINT hosts_attempt_fk FOREIGN KEY (training_job_id, attempt) REFERENCES attempts (training_job_id, number)
);

-- How far each series of points has come and how it is thinned; last, least and most are kept whatever the stride.
-- Points are numbered through all attempts: base is the first number of the latest attempt with a point.
CREATE TABLE metric_series (
    training_job_id TEXT COLLATE "C" NOT NULL,
    definition      BIGINT NOT NULL,
    host            BIGINT NOT NULL,
    seen            BIGINT NOT NULL,
    stride          BIGINT NOT NULL,
    attempt         BIGINT NOT NULL,
    base            BIGINT NOT NULL,
    last_seq        BIGINT NOT NULL,
    least_seq       BIGINT NOT NULL,
    least_value     DOUBLE PRECISION NOT NULL,
    most_seq        BIGINT NOT NULL,
    most_value      DOUBLE PRECISION NOT NULL,
    CONSTRAINT metric_series_pk PRIMARY KEY (training_job_id, definition, host)
);

CREATE TABLE metric_points (
    training_job_id TEXT COLLATE "C" NOT NULL,
    definition      BIGINT NOT NULL,
    host            BIGINT NOT NULL,
    attempt         BIGINT NOT NULL,
    byte_offset     BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    read_at         BIGINT NOT NULL,
    value           DOUBLE PRECISION NOT NULL,
    CONSTRAINT metric_points_pk PRIMARY KEY (training_job_id, definition, host, attempt, byte_offset)
);

CREATE TABLE log_segments (
    training_job_id TEXT COLLATE "C" NOT NULL,
    attempt         BIGINT NOT NULL,
    host            BIGINT NOT NULL,
    first_offset    BIGINT NOT NULL,
    first_time      BIGINT NOT NULL,
    bytes           BIGINT NOT NULL,
    object_key      TEXT NOT NULL,
    CONSTRAINT log_segments_pk PRIMARY KEY (training_job_id, attempt, host, first_offset)
);

CREATE TABLE tags (
    arn       TEXT COLLATE "C" NOT NULL,
    tag_key   TEXT COLLATE "C" NOT NULL,
    tag_value TEXT NOT NULL,
    CONSTRAINT tags_pk PRIMARY KEY (arn, tag_key)
);

CREATE TABLE servers (
    id         TEXT COLLATE "C" NOT NULL CONSTRAINT servers_pk PRIMARY KEY,
    beat_at    BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE server_settings (
    setting       TEXT COLLATE "C" NOT NULL CONSTRAINT server_settings_pk PRIMARY KEY,
    setting_value TEXT NOT NULL
);
