-- The name of the CDM's source.
select
    0 as analysis_id,
    (select min(cdm_source_name) from cdm_source) as stratum_1,
    'genokit' as stratum_2,
    count(distinct person_id) as n
from person
