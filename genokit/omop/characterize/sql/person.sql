-- Persons by gender, year of birth, race and ethnicity.
select
    case
        when grouping(race_concept_id) = 0 and grouping(ethnicity_concept_id) = 0 then 12
        when grouping(year_of_birth) = 0 and grouping(gender_concept_id) = 0 then 10
        when grouping(gender_concept_id) = 0 then 2
        when grouping(year_of_birth) = 0 then 3
        when grouping(race_concept_id) = 0 then 4
        when grouping(ethnicity_concept_id) = 0 then 5
        else 1
    end as analysis_id,
    case
        when grouping(year_of_birth) = 0 then year_of_birth
        when grouping(gender_concept_id) = 0 then gender_concept_id
        when grouping(race_concept_id) = 0 then race_concept_id
        else ethnicity_concept_id
    end as stratum_1,
    case
        when grouping(year_of_birth) = 0 then gender_concept_id
        when grouping(race_concept_id) = 0 then ethnicity_concept_id
    end as stratum_2,
    count(*) as n
from (
    select distinct person_id, gender_concept_id, year_of_birth, race_concept_id, ethnicity_concept_id from person
) as people
group by grouping sets (
    (), (gender_concept_id), (year_of_birth), (race_concept_id), (ethnicity_concept_id),
    (year_of_birth, gender_concept_id), (race_concept_id, ethnicity_concept_id)
)
