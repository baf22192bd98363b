select row_id, subject_id, hadm_id, case when icustays > 0 and a % 3 > 0 then first_icustay end as icustay_id,
    case when b % 1000 > 0 then midnight(minutes(admittime, at_min)) end as startdate,
    -- Some orders end before they begin.
    case when b % 1000 > 1 then midnight(minutes(admittime, at_min + if((b >> 10) % 100 = 0, -1440, (a % 5760)::bigint))) end
        as enddate,
    drug_type, drug, case when (b >> 20) % 5 < 3 then drug end as drug_name_poe,
    case when (b >> 20) % 5 < 3 then generic end as drug_name_generic, formulary as formulary_drug_cd,
    case when gsn <> '' and (b >> 22) % 9 > 0 then gsn end as gsn,
    case when share(b >> 25) < 0.03 then null when share(b >> 25) < 0.065 then '0'
        -- What went through a spreadsheet.
        when share(b >> 25) < 0.075 and ndc <> '0' then ndc::bigint::varchar || '.0'
        when share(b >> 25) < 0.08 and ndc <> '0' then format('{:.1E}', ndc::double) else ndc end as ndc,
    strength as prod_strength, dose as dose_val_rx, dose_unit as dose_unit_rx, case when (b >> 34) % 400 = 0 then '40,000' else form_val end as form_val_disp,
    form_unit as form_unit_disp, route
from (
    select each.*, drug_place.*, greatest(stay_min, 1) * i // n as at_min
    from each join drug_place on place = (b >> 50)::int % 1024
)
