-- What comes from outside is cut to what stays exact in a double (src/bounds.rs).

-- Unsigned integers of 2^63 and more are read as negative ones.
local function bounded(value, most) return (value < 0 or value > most) and most or value end

-- A sequence number; 0 where it can be none.
local function number(value) return value >= 0 and value <= MAX_NUMBER and value or 0 end

-- A sequence number that others go on from; 0 where it is so high that it says nothing, and would leave no room above it.
local function seen(value) return value >= 0 and value < MAX_SEEN and value or 0 end
