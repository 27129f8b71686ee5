-- Open calls. The functions of src/transition/calls.rs, in its order. `fetch`, `save` and the local ones that pack and move members exist only here, and so does
-- `add_new`, which saves a command. How many calls each deployment has is a part of its totals (lua/windows.lua).
--
-- Members are session, sequence number of the grant, and deployment, so that the calls of an ended session are found in parts (P16); score 0.

calls = part(function(calls)
  local known, moves

  local function member_of(id, number, deployment) return id .. store.id(number) .. deployment end

  local function is_open(member)
    if known[member] == nil then known[member] = call('ZSCORE', CALLS, member) and true or false end
    return known[member]
  end

  local function move(member, deployment, open)
    if is_open(member) == open then return false end
    known[member], moves[member] = open, open and 0
    windows.add_open(deployment, open and 1 or -1)
    return true
  end

  -- Reads many calls at once: { session, number, deployment } each.
  function calls.fetch(wanted)
    local members = {}
    for _, of in ipairs(wanted) do
      local member = member_of(of[1], of[2], of[3])
      -- A known call may have changed in this step.
      if known[member] == nil then members[#members + 1] = member end
    end
    if #members == 0 then return end
    for i, score in ipairs(call('ZMSCORE', CALLS, unpack(members))) do known[members[i]] = score and true or false end
  end

  function calls.add(id, number, deployment) move(member_of(id, number, deployment), deployment, true) end

  -- Adds a call of this step. Its number is new, so it need not be looked up.
  function calls.add_new(id, number, deployment)
    known[member_of(id, number, deployment)] = false
    calls.add(id, number, deployment)
  end

  -- Returns whether the call was open.
  function calls.remove(id, number, deployment) return move(member_of(id, number, deployment), deployment, false) end

  function calls.save()
    if next(moves) == nil then return end
    store.move_all(CALLS, moves)
    moves = {}
  end

  -- The first calls whose member has this prefix: { number, deployment } each.
  local function with_prefix(prefix, most)
    calls.save()
    local found = call('ZRANGEBYLEX', CALLS, '[' .. prefix, '[' .. prefix .. '\255', 'LIMIT', 0, most)
    for i, member in ipairs(found) do
      known[member] = true
      found[i] = { number = tonumber(member:sub(17, 32)), deployment = member:sub(33) }
    end
    return found
  end

  -- The first calls of a session, by their numbers.
  function calls.first_of(id, most) return with_prefix(id, most) end

  -- How many open calls a session has.
  function calls.count_of(id)
    calls.save()
    return call('ZLEXCOUNT', CALLS, '[' .. id, '[' .. id .. '\255')
  end

  -- The deployment of a call.
  function calls.deployment(id, number)
    local found = with_prefix(id .. store.id(number), 1)[1]
    return found and found.deployment
  end

  function calls.clear()
    store.write('UNLINK', CALLS)
    known, moves = {}, {}
  end

  return function() known, moves = {}, {} end
end)
