-- Visits, and parts of other visits: a stay in intensive care is in visit_detail.
select person_id, visit_start_date as start_date, coalesce(visit_end_date, visit_start_date) as end_date
from visit_occurrence
where visit_concept_id in $visit
union all
select d.person_id, d.visit_detail_start_date, coalesce(d.visit_detail_end_date, d.visit_detail_start_date)
from visit_detail as d
left join visit_occurrence as v on v.visit_occurrence_id = d.visit_occurrence_id and v.visit_concept_id in $visit
where d.visit_detail_concept_id in $visit and v.visit_occurrence_id is null
