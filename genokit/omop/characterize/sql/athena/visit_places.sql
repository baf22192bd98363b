-- Visits that end before they begin, and visits by place of service.
select
    case when grouping(early) = 0 then 211 else 1201 end as analysis_id,
    place_id as stratum_1,
    count(*) as n
from (
    select
        care_site.place_of_service_concept_id as place_id,
        case when visit.visit_end_date < visit.visit_start_date then 1 else 0 end as early
    from visit_occurrence as visit
    left join care_site on care_site.care_site_id = visit.care_site_id
) as visit
group by grouping sets ((early), (place_id))
having early = 1 or place_id is not null
