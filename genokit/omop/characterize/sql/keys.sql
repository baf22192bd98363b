-- Records during observation, each as one number of person, concept and month.
select
    (seen.number * getvariable('concepts') + kind.number) * getvariable('months')
    + (year(the_date) * 12 + month(the_date) - 1 - getvariable('first')) as key
from the_table as event
join observed as seen on seen.person_id = event.person_id and the_date between seen.start_date and seen.end_date
join kind on kind.concept_id is not distinct from the_concept
where the_persons
