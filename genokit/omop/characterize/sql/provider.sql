-- Providers by specialty.
select 301 as analysis_id, specialty_concept_id as stratum_1, count(distinct provider_id) as n
from provider
group by specialty_concept_id
