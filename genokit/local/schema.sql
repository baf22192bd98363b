create table environments (name text primary key, doc text, vcpus real, memory_mib integer, gpus integer);

create table policies (name text primary key, doc text);

create table queues (name text primary key, priority integer, doc text);

create table definitions (name text, revision integer, status text, doc text, primary key (name, revision));

-- An array job, or a multi-node one, is a row with 'size', and its children are rows with 'parent' and 'idx'.
create table jobs (
    seq integer primary key, id text unique not null, name text not null, queue text not null, status text not null,
    parent text, idx integer, size integer, kind text,   -- kind: null, 'array' or 'multinode'
    share text, scheduling_priority integer,
    created_at integer not null, started_at integer, stopped_at integer, status_reason text,
    doc text,                                            -- what SubmitJob resolved to, null in a child: its parent's
    runtime text,                                        -- the variables that the image brings, null in a child
    vcpus real, memory_mib integer, gpus integer,
    environment text, gpu_ids text not null default '[]', -- where it was placed
    host text,                                           -- the keeper's instance
    attempts text not null default '[]',
    waits integer not null default 0,                    -- whether it depends on anything
    stop text, stop_reason text                          -- a client's wish: 'cancel', 'terminate' or 'reclaim'
);

create index jobs_by_queue on jobs (queue, status, seq);

create index jobs_by_status on jobs (status, seq);

create index jobs_by_parent on jobs (parent, status, idx);

create index jobs_to_stop on jobs (stop) where stop is not null;

-- type: null, 'N_TO_N' or 'SEQUENTIAL'
create table dependencies (job text not null, on_job text, type text);

create index dependencies_by_job on dependencies (job);

create index dependencies_by_on_job on dependencies (on_job);

-- CloudFormation's stacks, those deleted too; their resources; and what happened to these.
create table stacks (id text primary key, name text not null, doc text);

create table stack_resources (
    stack text not null, logical text not null, type text, physical text, doc text, primary key (stack, logical));

create table stack_events (seq integer primary key autoincrement, stack text not null, doc text);

create table events (
    seq integer primary key autoincrement, at integer not null, job text not null, status text not null, reason text);

create trigger submitted after insert on jobs begin
    insert into events (at, job, status) values (new.created_at, new.id, new.status); end;

create trigger changed after update of status on jobs when old.status <> new.status begin
    insert into events (at, job, status, reason)
    values (cast((julianday('now') - 2440587.5) * 86400000 as integer), new.id, new.status, new.status_reason); end;
