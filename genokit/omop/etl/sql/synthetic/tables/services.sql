select row_id, subject_id, hadm_id, minutes(admittime, greatest(stay_min, 1) * i // n) as transfertime,
    case when i > 0 then pick(['MED', 'CMED', 'SURG', 'NSURG'], a >> 8) end as prev_service,
    case when newborn then 'NB' else pick(['MED', 'MED', 'MED', 'MED', 'CMED', 'CMED', 'CSURG', 'CSURG', 'SURG', 'NSURG', 'NMED',
        'TRAUM', 'OMED', 'VSURG', 'TSURG', 'ORTHO', 'GU', 'GYN', 'PSURG', 'ENT', 'OBS'], a) end as curr_service
from each
