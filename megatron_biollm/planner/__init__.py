"""Will it fit, how long will it take, what will it cost: layouts compared by arithmetic."""
