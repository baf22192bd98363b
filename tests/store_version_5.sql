-- What version 5 of the store held: jobs that have ended, run, wait, and wait for others; its keeper is gone.
BEGIN TRANSACTION;
CREATE TABLE definitions (name text, revision integer, status text, doc text, primary key (name, revision));
INSERT INTO "definitions" VALUES('hello',1,'ACTIVE','{"tags": {}, "jobDefinitionName": "hello", "type": "container", "containerProperties": {"image": "genokit", "command": ["sh", "-c", "echo hello; echo more"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}]}, "containerOrchestrationType": "ECS"}');
INSERT INTO "definitions" VALUES('bad',1,'ACTIVE','{"tags": {}, "jobDefinitionName": "bad", "type": "container", "containerProperties": {"image": "genokit", "command": ["sh", "-c", "echo no >&2; exit 3"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}]}, "containerOrchestrationType": "ECS"}');
INSERT INTO "definitions" VALUES('arr',1,'ACTIVE','{"tags": {}, "jobDefinitionName": "arr", "type": "container", "containerProperties": {"image": "genokit", "command": ["sh", "-c", "echo $AWS_BATCH_JOB_ARRAY_INDEX"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}]}, "containerOrchestrationType": "ECS"}');
INSERT INTO "definitions" VALUES('full',1,'ACTIVE','{"tags": {}, "jobDefinitionName": "full", "type": "container", "containerProperties": {"image": "genokit", "command": ["sleep", "600"], "resourceRequirements": [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "16"}]}, "containerOrchestrationType": "ECS"}');
INSERT INTO "definitions" VALUES('py',1,'ACTIVE','{"tags": {}, "jobDefinitionName": "py", "type": "container", "containerProperties": {"image": "genokit", "command": ["python", "-c", "import genokit, os; print(os.environ[''GENOKIT_HOME''], os.environ[''X''])"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}], "environment": [{"name": "X", "value": "y"}]}, "containerOrchestrationType": "ECS"}');
CREATE TABLE dependencies (job text not null, on_job text, type text);
INSERT INTO "dependencies" VALUES('dependent','children',NULL);
CREATE TABLE environments (name text primary key, doc text, vcpus real, memory_mib integer, gpus integer);
INSERT INTO "environments" VALUES('this-machine','{"state": "ENABLED", "tags": {}, "type": "MANAGED", "computeResources": {"type": "EC2", "minvCpus": 0, "maxvCpus": 2, "subnets": []}}',2.0,24105,0);
CREATE TABLE events (
    seq integer primary key autoincrement, at integer not null, job text not null, status text not null, reason text);
CREATE TABLE hosts (instance text primary key, offset integer not null default 0);
INSERT INTO "hosts" VALUES('i-0123456789abcdef',1281);
CREATE TABLE jobs (
    seq integer primary key, id text unique not null, name text not null, queue text not null, status text not null,
    parent text, idx integer, size integer, kind text,   -- kind: null, 'array' or 'multinode'
    share text, scheduling_priority integer,
    created_at integer not null, started_at integer, stopped_at integer, status_reason text,
    doc text,                                            -- what SubmitJob resolved to, null in a child: its parent's
    runtime text,                                        -- the variables that the image brings, null in a child
    vcpus real, memory_mib integer, gpus integer,
    environment text, gpu_ids text not null default '[]', -- where it was placed
    host text, process text,                             -- the keeper's instance; the process and when it started
    attempts text not null default '[]',
    waits integer not null default 0,                    -- whether it depends on anything
    stop text, stop_reason text                          -- a client's wish: 'cancel', 'terminate' or 'reclaim'
);
INSERT INTO "jobs" VALUES(1,'over','one','highPriority','SUCCEEDED',NULL,NULL,NULL,NULL,NULL,0,1795941884841,1795941884870,1795941884879,'Essential container in task exited','{"definition": ["hello", 1], "parameters": {}, "tags": {}, "propagateTags": false, "retryStrategy": {"attempts": 1}, "dependsOn": [], "container": {"image": "genokit", "command": ["sh", "-c", "echo hello; echo more"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}], "environment": []}}','{runtime}',0.05,16,0,'this-machine','[]','i-0123456789abcdef','[4000, "100"]','[{"container": {"logStreamName": "hello/default/f4d6200455a1f21cd885dfcb0bf33ace", "exitCode": 0}, "startedAt": 1795941884870, "stoppedAt": 1795941884879, "statusReason": "Essential container in task exited"}]',0,NULL,NULL);
INSERT INTO "jobs" VALUES(3,'array','one','highPriority','SUCCEEDED',NULL,NULL,1,'array',NULL,0,1795941884932,NULL,1795941884955,NULL,'{"definition": ["arr", 1], "parameters": {}, "tags": {}, "propagateTags": false, "retryStrategy": {"attempts": 1}, "dependsOn": [], "container": {"image": "genokit", "command": ["sh", "-c", "echo $AWS_BATCH_JOB_ARRAY_INDEX"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}], "environment": []}}','{runtime}',0.05,16,0,NULL,'[]',NULL,NULL,'[]',0,NULL,NULL);
INSERT INTO "jobs" VALUES(4,'array:0','one','highPriority','SUCCEEDED','array',0,NULL,'array',NULL,0,1795941884932,1795941884940,1795941884947,'Essential container in task exited',NULL,NULL,0.05,16,0,'this-machine','[]','i-0123456789abcdef','[4000, "100"]','[{"container": {"logStreamName": "arr/default/a8e5da28498417ddf9e2e86c61cffba9", "exitCode": 0}, "startedAt": 1795941884940, "stoppedAt": 1795941884947, "statusReason": "Essential container in task exited"}]',0,NULL,NULL);
INSERT INTO "jobs" VALUES(8,'running','one','highPriority','RUNNING',NULL,NULL,NULL,NULL,NULL,0,1795941884996,1795941885006,NULL,NULL,'{"definition": ["full", 1], "parameters": {}, "tags": {}, "propagateTags": false, "retryStrategy": {"attempts": 1}, "dependsOn": [], "container": {"image": "genokit", "command": ["sleep", "600"], "resourceRequirements": [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "16"}], "environment": []}}','{runtime}',2.0,16,0,'this-machine','[]','i-0123456789abcdef','[4000, "100"]','[{"container": {"logStreamName": "full/default/5486658155115bf3e6d74fe59381850f"}, "startedAt": 1795941885006}]',0,NULL,NULL);
INSERT INTO "jobs" VALUES(9,'waiting','one','highPriority','RUNNABLE',NULL,NULL,NULL,NULL,NULL,0,1795941885024,NULL,NULL,NULL,'{"definition": ["py", 1], "parameters": {}, "tags": {}, "propagateTags": false, "retryStrategy": {"attempts": 1}, "dependsOn": [], "container": {"image": "genokit", "command": ["python", "-c", "import genokit, os; print(os.environ[''GENOKIT_HOME''], os.environ[''X''])"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}], "environment": [{"name": "X", "value": "y"}]}}','{runtime}',0.05,16,0,NULL,'[]',NULL,NULL,'[]',0,NULL,NULL);
INSERT INTO "jobs" VALUES(10,'children','one','highPriority','PENDING',NULL,NULL,3,'array',NULL,0,1795941885040,NULL,NULL,NULL,'{"definition": ["arr", 1], "parameters": {}, "tags": {}, "propagateTags": false, "retryStrategy": {"attempts": 1}, "dependsOn": [], "container": {"image": "genokit", "command": ["sh", "-c", "echo $AWS_BATCH_JOB_ARRAY_INDEX"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}], "environment": []}}','{runtime}',0.05,16,0,NULL,'[]',NULL,NULL,'[]',0,NULL,NULL);
INSERT INTO "jobs" VALUES(11,'children:0','one','highPriority','RUNNABLE','children',0,NULL,'array',NULL,0,1795941885040,NULL,NULL,NULL,NULL,NULL,0.05,16,0,NULL,'[]',NULL,NULL,'[]',0,NULL,NULL);
INSERT INTO "jobs" VALUES(12,'children:1','one','highPriority','RUNNABLE','children',1,NULL,'array',NULL,0,1795941885040,NULL,NULL,NULL,NULL,NULL,0.05,16,0,NULL,'[]',NULL,NULL,'[]',0,NULL,NULL);
INSERT INTO "jobs" VALUES(13,'children:2','one','highPriority','RUNNABLE','children',2,NULL,'array',NULL,0,1795941885040,NULL,NULL,NULL,NULL,NULL,0.05,16,0,NULL,'[]',NULL,NULL,'[]',0,NULL,NULL);
INSERT INTO "jobs" VALUES(14,'dependent','one','highPriority','PENDING',NULL,NULL,NULL,NULL,NULL,0,1795941885043,NULL,NULL,NULL,'{"definition": ["hello", 1], "parameters": {}, "tags": {}, "propagateTags": false, "retryStrategy": {"attempts": 1}, "dependsOn": [{"jobId": "children"}], "container": {"image": "genokit", "command": ["sh", "-c", "echo hello; echo more"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}], "environment": []}}','{runtime}',0.05,16,0,NULL,'[]',NULL,NULL,'[]',1,NULL,NULL);
INSERT INTO "jobs" VALUES(15,'retried','one','highPriority','RUNNABLE',NULL,NULL,NULL,NULL,NULL,0,1795941885060,NULL,NULL,NULL,'{"definition": ["bad", 1], "parameters": {}, "tags": {}, "propagateTags": false, "retryStrategy": {"attempts": 2}, "dependsOn": [], "container": {"image": "genokit", "command": ["sh", "-c", "echo no >&2; exit 3"], "resourceRequirements": [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}], "environment": []}}','{runtime}',0.05,16,0,NULL,'[]',NULL,NULL,'[]',0,NULL,NULL);
CREATE TABLE policies (name text primary key, doc text);
CREATE TABLE queues (name text primary key, priority integer, doc text);
INSERT INTO "queues" VALUES('highPriority',1000,'{"state": "ENABLED", "computeEnvironmentOrder": ["this-machine"], "tags": {}}');
INSERT INTO "queues" VALUES('lowPriority',1,'{"state": "ENABLED", "computeEnvironmentOrder": ["this-machine"], "tags": {}}');
CREATE TABLE stack_events (seq integer primary key autoincrement, stack text not null, doc text);
CREATE TABLE stack_resources (
    stack text not null, logical text not null, type text, physical text, doc text, primary key (stack, logical));
CREATE TABLE stacks (id text primary key, name text not null, doc text);
CREATE INDEX jobs_by_queue on jobs (queue, status, seq);
CREATE INDEX jobs_by_status on jobs (status, seq);
CREATE INDEX jobs_by_parent on jobs (parent, status, idx);
CREATE INDEX jobs_to_stop on jobs (stop) where stop is not null;
CREATE INDEX dependencies_by_job on dependencies (job);
CREATE INDEX dependencies_by_on_job on dependencies (on_job);
CREATE TRIGGER submitted after insert on jobs begin
    insert into events (at, job, status) values (new.created_at, new.id, new.status); end;
CREATE TRIGGER changed after update of status on jobs when old.status <> new.status begin
    insert into events (at, job, status, reason)
    values (cast((julianday('now') - 2440587.5) * 86400000 as integer), new.id, new.status, new.status_reason); end;
PRAGMA user_version = 5;
COMMIT;
